"""Show a message where a sandbox was denied a connection, where it asks for one, and when one is ready."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterable, Mapping
from typing import Any

from irons import AskedQuestion, Event, LifecycleChange, PluginSetting, hookimpl

_last: dict[str, float] = {}
"""When each sandbox was last the subject of a message (time.monotonic)."""


@hookimpl
def irons_settings() -> Iterable[PluginSetting]:
    """Declare `[plugins.notify]`."""
    return [
        PluginSetting(
            "command",
            "The program that shows a title and a text, with its options.",
            ["notify-send"],
            type=list,
        ),
        PluginSetting("every", "Seconds between two messages about one sandbox.", 10, type=int),
    ]


@hookimpl
def irons_event(event: Event, settings: Mapping[str, Any]) -> None:
    """Show what was denied, the first of many within `every` seconds."""
    if event.verdict != "blocked":
        return
    now = time.monotonic()
    if now - _last.get(event.sandbox, float("-inf")) < settings["every"]:
        return
    _last[event.sandbox] = now
    _show(settings, f"{event.sandbox}: denied", f"{event.host}:{event.port or '?'}")


@hookimpl
def irons_lifecycle(change: LifecycleChange, settings: Mapping[str, Any]) -> None:
    """Show that a sandbox is ready."""
    if change.kind == "ready":
        _show(settings, change.sandbox, "is ready")


@hookimpl
def irons_ask(question: AskedQuestion, settings: Mapping[str, Any]) -> None:
    """Show what is asked; the answer is given elsewhere."""
    _show(settings, f"{question.sandbox} asks", f"{question.host} port {question.port}")


def _show(settings: Mapping[str, Any], title: str, text: str) -> None:
    subprocess.run([*settings["command"], title, text], timeout=10, check=False)
