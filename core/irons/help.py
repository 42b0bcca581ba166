"""Help made from the command tree: the overview, a group, one command; no handler is imported."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from irons.command import GLOBAL_OPTIONS, Arg, Command, Flag, Opt
from irons.errors import EXIT_CODES, UsageError
from irons.tree import Tree

WIDTH = 96


def help_text(tree: Tree, words: Sequence[str], *, face: str = "cli") -> str:
    """Return the help for these words: everything, a group of commands, or one command.

    Raises:
        UsageError: The words name nothing.
    """
    word = "" if face == "prompt" else "irons "
    if not words:
        return _overview(tree, word)
    match = tree.find(words)
    if match is not None and not match.rest:
        return _command(match.command, word)
    if tree.is_group(tuple(words)):
        lines = [f"{word}{' '.join(words)} COMMAND", "", "Commands:"]
        lines += _table(
            [(c.name, c.help) for c in tree if c.path[: len(words)] == tuple(words) and not c.hidden]
        )
        return "\n".join(lines) + "\n"
    near = tree.suggest(words)
    raise UsageError(f"there is no command {' '.join(words)!r}", hint=f"did you mean {near}?" if near else "")


def _overview(tree: Tree, word: str) -> str:
    lines = [
        f"usage: {word}COMMAND … [options]" if word else "COMMAND … [options]",
        "",
        "Real machines for AI agents, without the internet: every outbound connection is judged",
        "outside the sandbox, and written down.",
        "",
        "Commands:",
        *_table([(c.name, c.help) for c in tree if not c.hidden]),
        "",
        "Options of every command:",
        *_table(
            [
                *(_option(option) for option in GLOBAL_OPTIONS),
                ("-h, --help", "Show help."),
                ("-V, --version", "Show the version."),
            ]
        ),
        "",
        f"`{word}COMMAND --help` tells more; `{word}help exit-codes|environment|output|egress` are topics.",
    ]
    return "\n".join(lines) + "\n"


def _command(command: Command, word: str) -> str:
    lines = [f"usage: {usage(command, word)}", "", *_wrapped(command.help)]
    if command.about:
        for paragraph in command.about.split("\n\n"):
            lines += ["", *_wrapped(" ".join(paragraph.split()))]
    if command.arguments:
        lines += ["", "Arguments:", *_table([(a.shown, _with_choices(a)) for a in command.arguments])]
    if command.options:
        lines += ["", "Options:", *_table([_option(option) for option in command.options])]
    own = {flag for option in command.options for flag in option.flags}
    shared = [option for option in GLOBAL_OPTIONS if not own.issuperset(option.flags)]
    lines += ["", "Options of every command:", *_table([_option(option) for option in shared])]
    if command.aliases:
        lines += ["", f"Also: {', '.join(' '.join(alias) for alias in command.aliases)}"]
    if command.examples:
        lines += [
            "",
            "Examples:",
            *(f"  {word}{example.removeprefix('irons ')}" for example in command.examples),
        ]
    codes = sorted({0, 1, 2, 130, *command.exits})
    lines += ["", "Exit codes:", *_table([(str(code), EXIT_CODES.get(code, "")) for code in codes])]
    return "\n".join(lines) + "\n"


def usage(command: Command, word: str = "irons ") -> str:
    """Return the one-line usage of a command."""
    parts = [f"{word}{command.name}"]
    parts += [f"[{_flag(option)}]" for option in command.options]
    shapes = {"1": "{}", "?": "[{}]", "*": "[{}...]", "+": "{}...", "--": "[-- {}...]"}
    parts += [shapes[argument.takes].format(argument.shown) for argument in command.arguments]
    return " ".join(parts)


def _flag(option: Opt | Flag) -> str:
    return option.flags[0] if isinstance(option, Flag) else f"{option.flags[0]} {option.shown}"


def _option(option: Opt | Flag) -> tuple[str, str]:
    names = ", ".join(option.flags)
    if isinstance(option, Flag):
        return names, option.help
    default = f" (default: {option.default})" if option.default not in (None, "", ()) else ""
    return f"{names} {option.shown}", f"{option.help}{default}"


def _with_choices(argument: Arg) -> str:
    return f"{argument.help} One of: {', '.join(argument.choices)}." if argument.choices else argument.help


def _table(rows: Sequence[tuple[str, str]]) -> list[str]:
    width = min(max((len(left) for left, _ in rows), default=0), 30)
    lines: list[str] = []
    for left, right in rows:
        wrapped = textwrap.wrap(right, WIDTH - width - 4) or [""]
        if len(left) > width:
            lines += [f"  {left}", f"  {'':<{width}}  {wrapped[0]}".rstrip()]
        else:
            lines.append(f"  {left:<{width}}  {wrapped[0]}".rstrip())
        lines += [f"  {'':<{width}}  {line}" for line in wrapped[1:]]
    return lines


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH)
