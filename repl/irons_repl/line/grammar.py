"""Tokens into steps: irons commands and shell commands, how they are joined, where their output goes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from irons.errors import UsageError
from irons_repl.line.lexer import Token, lex

Joiner = Literal[";", "&&", "||"]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class LineError(UsageError):
    """The line is invalid. `column` is the offset where it stops making sense, from 0."""

    code = "syntax"

    def __init__(self, message: str, column: int) -> None:
        """Take what is wrong and where."""
        super().__init__(message)
        self.column = column


class Redirection(NamedTuple):
    """The file that output goes to."""

    path: str
    append: bool


class LineStep(NamedTuple):
    """One command of a line.

    `words` are those of an irons command, empty for a shell command (`!…`); `shell` is that command, or the pipeline that the irons
    command's output goes through; `joiner` is what stands before it.
    """

    words: tuple[str, ...]
    joiner: Joiner
    shell: str = ""
    output: Redirection | None = None


def steps_of(line: str) -> list[LineStep]:
    """Return the steps of a whole line or of several; none where it is blank.

    Raises:
        LineError: A quote is open, an operator stands where it can't, a control character is in it.
    """
    control = _CONTROL.search(line)
    if control:
        raise LineError(f"a control character ({control[0]!r}) can't be part of a command", control.start())
    tokens = [token for token in lex(line) if token.kind != "comment"]
    if tokens and tokens[-1].open:
        left = tokens[-1]
        what = "a backslash ends it" if left.open == "\\" else f"the quote {left.open} is not closed"
        raise LineError(what, left.opened)
    steps: list[LineStep] = []
    joiner: Joiner = ";"
    waits = 0
    part: list[Token] = []
    for token in tokens:
        if token.kind != "operator" or token.text not in (";", "&&", "||", "\n"):
            part.append(token)
            continue
        if part:
            steps.append(_step(part, joiner))
            part, joiner = [], ";"
        elif token.text != "\n":
            raise LineError(f"there is no command before {token.text}", token.start)
        if token.text in ("&&", "||"):
            joiner, waits = ("&&" if token.text == "&&" else "||"), token.start
    if part:
        steps.append(_step(part, joiner))
    elif joiner != ";":
        raise LineError(f"nothing follows {joiner}", waits)
    return steps


def _step(tokens: Sequence[Token], joiner: Joiner) -> LineStep:
    first = tokens[0]
    if first.text == "!" and first.kind == "operator":
        if not tokens[1].text:
            raise LineError("nothing follows !", first.start)
        return LineStep((), joiner, tokens[1].text)
    words: list[Token] = []
    output: Redirection | None = None
    shell = ""
    rest = iter(tokens)
    for token in rest:
        if token.kind == "word":
            words.append(token)
            continue
        if not words:
            raise LineError(f"there is no command before {token.text}", token.start)
        if token.text == "|":
            if output is not None:
                raise LineError("output goes to a file or through a pipe, not both", token.start)
            shell = next(rest).text
            if not shell or shell.startswith("|"):
                raise LineError("nothing follows |", token.start)
        elif token.text in (">", ">>"):
            target = next(rest, None)
            if target is None or target.kind != "word" or not target.text:
                raise LineError(f"{token.text} needs a file", token.start)
            if output is not None:
                raise LineError("output goes to one file", token.start)
            if words[-1].bare and words[-1].text.isdigit() and words[-1].end == token.start:
                raise LineError("only standard output can be redirected here", words[-1].start)
            output = Redirection(_expanded(target), append=token.text == ">>")
        else:
            raise LineError(f"{token.text} has no meaning here; quote it to pass it on", token.start)
    return LineStep(tuple(_expanded(word) for word in words), joiner, shell, output)


def _expanded(word: Token) -> str:
    """A word with its leading, unquoted `~` made the home directory."""
    if word.tilde:
        import os

        return os.path.expanduser(word.text)  # noqa: PTH111 - pathlib's drops a trailing slash and fails for unknown users
    return word.text
