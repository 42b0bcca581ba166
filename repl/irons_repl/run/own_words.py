"""What the prompt answers itself, and no plugin: its directory, screen, history and variables, and the ways out."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, TextIO

from irons.errors import IronsError, UsageError
from irons.text import clean

if TYPE_CHECKING:
    from irons_repl.run.session import ShellSession

LEAVES: Final = ("exit", "quit")
"""Words that leave the prompt."""

OWN_WORDS: Final[Mapping[str, str]] = {
    "cd": "Change the directory of this prompt.",
    "clear": "Clear the screen.",
    "exit": "Leave the prompt (Ctrl-D).",
    "export": "Set a variable for commands and programs.",
    "history": "Show the lines typed before.",
    "quit": "Leave the prompt (Ctrl-D).",
    "unset": "Remove a variable.",
    "?": "Show help.",
}
"""What the prompt answers next to the commands, each with what it does."""

_USAGE: Final[Mapping[str, str]] = {
    "cd": "cd [DIR]: go to DIR; without one to the home directory; cd - goes back. Files in commands and !programs start from there.",
    "clear": "clear: clear the screen. Ctrl-L does the same and keeps the line.",
    "exit": "exit [CODE]: leave the prompt, with exit code CODE (0 to 255).",
    "export": "export NAME[=VALUE] …: set variables for the commands and programs of this prompt, such as those that --env names; without "
    "a VALUE it is asked for and not shown. Lines with a VALUE are never remembered.",
    "history": "history [N | TEXT]: show the last N lines, or those with TEXT; without either, all. Lines with secrets were never kept.",
    "quit": "quit [CODE]: leave the prompt, with exit code CODE (0 to 255).",
    "unset": "unset NAME …: remove variables.",
}

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

_HERE_ALONE: Final = re.compile(r"(cd|export|unset|alias|umask)(?:\s[^;&|\n]*)?")
"""A shell command that changes the shell alone, which ends with it."""


def answer(words: Sequence[str], session: ShellSession, output: TextIO | None) -> int | None:
    """Answer a command of the prompt's own; return its exit code, None where it is none of these.

    Args:
        words: The command.
        session: The prompt.
        output: Where it writes; None is the terminal.

    Raises:
        IronsError: It can't be done.
    """
    name, *rest = words
    stdout = output or session.streams.stdout
    if name in ("help", "?") and len(rest) == 1 and rest[0] in _USAGE:
        stdout.write(f"{_USAGE[rest[0]]}\n")
    elif name in _USAGE and rest and rest[0] in ("-h", "--help"):
        stdout.write(f"{_USAGE[name]}\n")
    elif name not in _USAGE or name in LEAVES:
        return None
    elif name == "cd":
        _cd(rest, session, stdout)
    elif name == "clear":
        _clear(rest, session, output)
    elif name == "export":
        _export(rest, session)
    elif name == "unset":
        _unset(rest, session)
    else:
        _history(rest, session, stdout)
    return 0


def leaving(words: Sequence[str]) -> int:
    """Return the exit code that a way out names.

    Raises:
        UsageError: It names none that there is.
    """
    if len(words) == 1:
        return 0
    if len(words) == 2 and words[1].isascii() and words[1].isdigit() and int(words[1]) <= 255:
        return int(words[1])
    raise UsageError(
        f"{clean(' '.join(words[1:]), limit=40)!r} is not an exit code (0 to 255)",
        hint=f"{words[0]} alone leaves with 0",
    )


def check_shell(command: str) -> None:
    """Refuse a shell command that would succeed and change nothing here.

    Raises:
        UsageError: It changes the shell that runs it alone, and that ends with it.
    """
    alone = _HERE_ALONE.fullmatch(command.strip())
    if alone is None:
        return
    own = alone[1] in OWN_WORDS
    hint = f"use {alone[1]} without the !" if own else "join it to the command that needs it: !A; B"
    raise UsageError(f"!{alone[1]} changes a shell that ends at once, and nothing here", hint=hint)


def _cd(words: Sequence[str], session: ShellSession, stdout: TextIO) -> None:
    if len(words) > 1:
        raise UsageError("cd takes one directory", hint="quote a name with spaces in it")
    wanted = words[0] if words else session.env.get("HOME") or os.path.expanduser("~")  # noqa: PTH111 - a home may be missing
    back = wanted == "-"
    if back:
        wanted = session.env.get("OLDPWD", "")
        if not wanted:
            raise UsageError("there is no directory to go back to")
    before = _here()
    try:
        os.chdir(wanted)
    except OSError as error:
        raise IronsError(f"{clean(wanted)}: {error.strerror}") from None
    session.env["OLDPWD"] = before
    session.env["PWD"] = _here()
    if back:
        stdout.write(f"{clean(_here())}\n")


def _here() -> str:
    try:
        return os.getcwd()  # noqa: PTH109 - a text for a variable
    except OSError:
        return ""


def _clear(words: Sequence[str], session: ShellSession, output: TextIO | None) -> None:
    if words:
        raise UsageError("clear takes nothing")
    streams = session.streams
    if output is None and streams.stdout_is_tty and streams.env.get("TERM", "dumb") != "dumb":
        streams.stdout.write("\x1b[H\x1b[2J")


def _export(words: Sequence[str], session: ShellSession) -> None:
    if not words:
        raise UsageError("export takes NAME=VALUE, or NAME, which asks for the value")
    given = [word.partition("=") for word in words]
    for name, _, _ in given:
        _check_name(name)
    for name, has_value, value in given:
        session.env[name] = value if has_value else _asked(name, session)


def _asked(name: str, session: ShellSession) -> str:
    if not (session.streams.stdin_is_tty and session.streams.stderr_is_tty):
        raise UsageError(f"export {name} has no one to ask for the value", hint=f"export {name}=VALUE")
    from getpass import getpass

    try:
        return getpass(f"{name}: ")
    except EOFError:
        raise IronsError(f"{name} was not set") from None


def _unset(words: Sequence[str], session: ShellSession) -> None:
    if not words:
        raise UsageError("unset takes the name of a variable")
    for name in words:
        _check_name(name)
        session.env.pop(name, None)


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise UsageError(f"{clean(name, limit=40)!r} is not the name of a variable")


def _history(words: Sequence[str], session: ShellSession, stdout: TextIO) -> None:
    if len(words) > 1:
        raise UsageError("history takes a number or a text", hint="quote a text with spaces in it")
    lines = session.history()
    wanted = words[0] if words else ""
    if wanted.isascii() and wanted.isdigit():
        lines = lines[len(lines) - min(int(wanted), len(lines)) :]
    elif wanted:
        lines = [line for line in lines if wanted in line]
    stdout.writelines("\n".join(map(clean, line.split("\n"))) + "\n" for line in lines)
