"""What the prompt looks like: the terminal's own colours for text, a dark ground for what lies over it or below it."""

from __future__ import annotations

from prompt_toolkit.styles import Style

COLOURED = Style.from_dict(
    {
        "prompt": "bold",
        "code": "ansired",
        "sandbox": "ansicyan",
        "command": "bold",
        "option": "ansicyan",
        "quoted": "ansigreen",
        "operator": "ansimagenta",
        "shell": "ansiyellow",
        "place": "bold ansicyan",
        "there": "ansicyan",
        "wrong": "bold ansired",
        "comment": "ansibrightblack",
        "auto-suggestion": "ansibrightblack",
        "bottom-toolbar": "noreverse bg:#303030 #d0d0d0",
        "bottom-toolbar.text": "",
        "good": "#87d787",
        "bad": "bold #ff8787",
        "busy": "#ffd787",
        "stale": "italic #9e9e9e",
        "where": "bold",
        "keys": "bold #87afd7",
        "asked": "bold ansiyellow",
        "completion-menu": "bg:#303030 #d0d0d0",
        "completion-menu.completion.current": "noreverse bold bg:#005f87 #ffffff",
        "completion-menu.meta.completion": "bg:#262626 #9e9e9e",
        "completion-menu.meta.completion.current": "bg:#005f87 #d7d7d7",
        "scrollbar.background": "bg:#3a3a3a",
        "scrollbar.button": "bg:#585858",
    }
)

PLAIN = Style.from_dict(
    {
        "bottom-toolbar": "reverse",
        "bottom-toolbar.text": "",
        "auto-suggestion": "italic",
        "place": "bold",
        "there": "underline",
        "wrong": "reverse",
        "asked": "bold",
    }
)
"""Without colour: what a terminal can show next to it."""
