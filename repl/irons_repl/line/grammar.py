"""Tokens into steps: irons commands, commands in a sandbox, shell commands, how they are joined, where their output goes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from irons.errors import UsageError
from irons.record import NamedTuple
from irons_repl.line.lexer import Token, lex
from irons_repl.line.sandbox_line import is_whole, program_of, quoted_form, sandbox_of

Joiner = Literal[";", "&&", "||"]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class LineError(UsageError):
    """The line is invalid. `column` is the offset where it stops making sense, from 0."""

    code = "syntax"

    def __init__(self, message: str, column: int, *, hint: str = "") -> None:
        """Take what is wrong, where, and what to type instead."""
        super().__init__(message, hint=hint)
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
    for at, token in enumerate(tokens):
        if token.kind != "operator" or token.text not in (";", "&&", "||", "\n"):
            part.append(token)
            continue
        if part:
            if token.text != "\n":
                _refuse_after_sandbox(line, tokens[at - len(part) :], token)
            steps.append(_step(line, part, joiner))
            part, joiner = [], ";"
        elif token.text != "\n":
            raise LineError(f"there is no command before {token.text}", token.start)
        if token.text in ("&&", "||"):
            joiner, waits = ("&&" if token.text == "&&" else "||"), token.start
    if part:
        steps.append(_step(line, part, joiner))
    elif joiner != ";":
        raise LineError(f"nothing follows {joiner}", waits)
    return steps


def _step(line: str, tokens: Sequence[Token], joiner: Joiner) -> LineStep:
    first = tokens[0]
    if first.text == "!" and first.kind == "operator":
        if not tokens[1].text:
            raise LineError("nothing follows !", first.start)
        return LineStep((), joiner, tokens[1].text)
    sandbox = sandbox_of(first)
    if not sandbox:
        words, shell, output = _parts(tokens)
        return LineStep(tuple(_expanded(word) for word in words), joiner, shell, output)
    try:
        words, shell, output = _parts(tokens)
    except LineError as error:
        error.hint = f"{quoted_form(line, tokens, through_pipes=False)} runs it in {sandbox}"
        raise
    _check_in_sandbox(line, tokens, words, sandbox)
    return LineStep(("exec", sandbox, "--", *program_of(line, words[1:])), joiner, shell, output)


def _parts(tokens: Sequence[Token]) -> tuple[list[Token], str, Redirection | None]:
    """A command's words, the pipeline that its output goes through, and the file that it goes to."""
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
    return words, shell, output


def _check_in_sandbox(line: str, tokens: Sequence[Token], words: Sequence[Token], sandbox: str) -> None:
    """Refuse a command in a sandbox that would not be what it looks like."""
    if len(words) == 1:
        raise LineError(
            f"nothing follows {tokens[0].text}", tokens[0].start, hint=f"ssh {sandbox} opens a shell"
        )
    operator = next((token for token in tokens if token.kind == "operator"), None)
    if operator is None:
        return
    before = [word for word in words[1:] if word.end <= operator.start]
    if not is_whole(line, before):
        hint = f"{quoted_form(line, tokens, through_pipes=True)} runs it in {sandbox}"
        raise LineError(f"{operator.text} stands between parentheses", operator.start, hint=hint)
    if not before or words[-1].start > operator.end:
        late = next((word for word in words[1:] if word.start > operator.end), words[-1])
        raise LineError(f"{operator.text} FILE is the last thing in a line for {sandbox}", late.start)


def _refuse_after_sandbox(line: str, tokens: Sequence[Token], joiner: Token) -> None:
    """Refuse `&&`, `||` and `;` after a command in a sandbox: what follows would run here.

    Args:
        line: The whole line.
        tokens: Those from the command's first on.
        joiner: What follows the command.
    """
    sandbox = sandbox_of(tokens[0])
    if not sandbox:
        return
    end = next(
        (at for at, token in enumerate(tokens) if token.text == "\n" and token.kind == "operator"), None
    )
    hint = f"{quoted_form(line, tokens[:end], through_pipes=True)} runs all of it in {sandbox}"
    raise LineError(f"what follows {joiner.text} would not run in {sandbox}", joiner.start, hint=hint)


def _expanded(word: Token) -> str:
    """A word with its leading, unquoted `~` made the home directory."""
    if word.tilde:
        import os

        return os.path.expanduser(word.text)  # noqa: PTH111 - pathlib's drops a trailing slash and fails for unknown users
    return word.text
