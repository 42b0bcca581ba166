"""A command that runs in a sandbox: `alpha: pytest -q | grep FAIL`.

The words up to `|` or `>` are a line for alpha's shell, as they were typed; the pipeline and the file are this machine's. What would look
as if it ran in alpha, and would not (`alpha: make && rm build`), is refused with the form that says which is meant.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from irons.cli.values import check_sandbox_name
from irons.errors import UsageError
from irons_repl.line.lexer import Token

_SHELL = 'exec "${SHELL:-/bin/sh}" -c "$1"'
"""Has the login's own shell read a line, as `irons ssh NAME -- LINE` does."""

_QUOTED = re.compile(r"'[^']*'|\"(?:\\.|[^\"\\])*\"|\\.", re.DOTALL)
_PLAIN = re.compile(r"[\w@%+=:,./-]+")
_LONGEST = 200


def sandbox_of(word: Token) -> str:
    """Return the sandbox that the first word of a command (`alpha:`) runs it in; empty where it names a command."""
    if word.kind != "word" or not word.bare or not word.text.endswith(":"):
        return ""
    name = word.text[:-1]
    try:
        return check_sandbox_name(name)
    except UsageError:
        return ""


def program_of(line: str, words: Sequence[Token]) -> tuple[str, ...]:
    """Return the program that has the sandbox's shell read what was typed.

    Args:
        line: The whole line.
        words: The words after the sandbox's, next to each other; one that is quoted is the shell's line itself.
    """
    only = len(words) == 1 and line[words[0].start] in "'\""
    return shell_program(words[0].text if only else line[words[0].start : words[-1].end])


def shell_program(line: str) -> tuple[str, ...]:
    """Return the program that has the sandbox's shell read a line."""
    return ("sh", "-c", _SHELL, "irons-line", line)


def quoted_there(word: str) -> str:
    """Return a path written so that the sandbox's shell reads exactly it, below its home where it begins with `~/`."""
    home = "~/" if word.startswith("~/") else ""
    rest = word.removeprefix(home)
    if not rest or _PLAIN.fullmatch(rest):
        return word
    quoted = rest.replace("'", "'\\''")
    return f"{home}'{quoted}'"


def is_whole(line: str, words: Sequence[Token]) -> bool:
    """Tell whether the words close every parenthesis and backtick that they open outside quotes."""
    if not words:
        return True
    plain = _QUOTED.sub(_substituted, line[words[0].start : words[-1].end])
    return plain.count("(") == plain.count(")") and plain.count("`") % 2 == 0


def _substituted(quoted: re.Match[str]) -> str:
    """What a shell would still run of a quoted part: a substitution within double quotes."""
    return quoted[0] if quoted[0].startswith('"') and ("$(" in quoted[0] or "`" in quoted[0]) else ""


def quoted_form(line: str, tokens: Sequence[Token], *, through_pipes: bool) -> str:
    """Return how the command is typed that runs all of it in the sandbox.

    Args:
        line: The whole line.
        tokens: Those of the command and of what is meant to follow it, the sandbox's word first.
        through_pipes: Whether pipelines run in the sandbox too, or stay here.
    """
    begin, end = tokens[0].end, tokens[-1].end
    pipe = next((token for token in tokens if token.text == "|" and token.kind == "operator"), None)
    there = line[begin : end if pipe is None or through_pipes else pipe.start].strip()
    here = "" if pipe is None or through_pipes else f" {line[pipe.start : end].strip()}"
    quoted = there.replace("'", "'\\''")
    form = f"{tokens[0].text} '{quoted}'{here}"
    return form if there and len(form) <= _LONGEST and "\n" not in form else f"{tokens[0].text} '…'"
