"""Steps into exit codes: irons commands in this process, shell commands and pipelines next to it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from irons.cli.main import run_words
from irons.errors import IronsError
from irons.terminal.output import show_error
from irons_repl.line.grammar import LineError, LineStep, Redirection, steps_of
from irons_repl.run.external import INTERRUPTED, SHELL, code_of, left_to_programs, run_program
from irons_repl.run.session import ShellSession
from irons_repl.run.signals import Ended

SNIPPET = 72
"""Columns of a line that are shown around the place where it stops making sense."""


class Leave(Exception):
    """The person wants to leave the prompt. `code` is what it exits with."""

    def __init__(self, code: int = 0) -> None:
        """Take the exit code."""
        super().__init__(code)
        self.code = code


class LineRunner:
    """Runs lines in a session."""

    def __init__(
        self, session: ShellSession, *, strict: bool = False, after: Callable[[int], None] | None = None
    ) -> None:
        """Take the session; `strict` stops at the first failure, as scripts do; `after` hears each step's exit code."""
        self._session = session
        self._strict = strict
        self._after = after

    def run(self, line: str) -> int:
        """Run one line, or several, and return the exit code of the last command that ran; it is the session's from then on.

        Raises:
            Leave: `exit` or `quit`.
        """
        session = self._session
        try:
            steps = steps_of(line)
        except LineError as error:
            _point(error, line, session)
            session.code = error.exit_code
            return session.code
        for at, step in enumerate(steps):
            if at and _skipped(step, session.code):
                continue
            session.code = self._step(step)
            if self._after is not None:
                self._after(session.code)
            if session.code == INTERRUPTED:
                break
            rescued = at + 1 < len(steps) and steps[at + 1].joiner == "||"
            if self._strict and session.code and not rescued:
                break
        return session.code

    def _step(self, step: LineStep) -> int:
        session = self._session
        try:
            if not step.words:
                session.flush()
                return run_program((SHELL, "-c", step.shell), session.env, stdin=session.stdin)
            if step.shell:
                return self._piped(step)
            if step.output is not None:
                with _opened(step.output) as file:
                    return self._command(step.words, file)
            return self._command(step.words, None)
        except KeyboardInterrupt:
            return INTERRUPTED
        except BrokenPipeError:
            return 0
        except IronsError as error:
            show_error(error, None, session.streams)
            return error.exit_code
        except OSError as error:
            show_error(IronsError(f"that can't be run: {error.strerror}"), None, session.streams)
            return 1
        finally:
            session.flush()

    def _command(self, words: Sequence[str], output: TextIO | None) -> int:
        session = self._session
        if words[0] in ("exit", "quit"):
            raise Leave(_exit_code(words))
        if words[0] == "irons":
            # A line from a shell's history or from a page; alone it asks for what is here already.
            words = words[1:] or ("--help",)
        if words[0] == "?":
            words = ("help", *words[1:])
        if session.debug:
            words = ("--debug", *words)
        streams = session.writing_to(output)
        try:
            return run_words(words, session.host, streams, face="prompt", session=session)
        except Ended:
            raise
        except SystemExit as error:
            # A stranger's handler that leaves ends its command, not the prompt.
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        finally:
            session.writing_to(None)

    def _piped(self, step: LineStep) -> int:
        """Run a command with its output going through a shell pipeline; a command that fails gives its code, else the pipeline does."""
        self._session.flush()
        read, write = os.pipe()
        with left_to_programs():
            process = subprocess.Popen((SHELL, "-c", step.shell), env=dict(self._session.env), stdin=read)
        os.close(read)
        try:
            code = self._into(step.words, write)
        except KeyboardInterrupt:
            code = INTERRUPTED
        finally:
            with left_to_programs():
                ended = code_of(process)
        return code or ended

    def _into(self, words: Sequence[str], descriptor: int) -> int:
        output = os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace")
        code = 0
        try:
            code = self._command(words, output)
            output.flush()
        except BrokenPipeError:
            code = 0
        finally:
            try:
                output.close()
            except BrokenPipeError:
                code = 0
        return code


def _skipped(step: LineStep, code: int) -> bool:
    return (step.joiner == "&&" and code != 0) or (step.joiner == "||" and code == 0)


def _exit_code(words: Sequence[str]) -> int:
    return int(words[1]) & 0xFF if len(words) > 1 and words[1].isascii() and words[1].isdigit() else 0


def _opened(output: Redirection) -> TextIO:
    try:
        return Path(output.path).open(
            "a" if output.append else "w", encoding="utf-8", errors="backslashreplace"
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise IronsError(f"{output.path} can't be written: {reason}") from None


def _point(error: LineError, line: str, session: ShellSession) -> None:
    """Say what is wrong with a line, and show where."""
    from irons.text import clean

    show_error(LineError(f"{error.message} (column {error.column + 1})", error.column), None, session.streams)
    begin = line.rfind("\n", 0, error.column) + 1
    end = line.find("\n", error.column)
    first = begin if error.column - begin < SNIPPET - 8 else error.column - SNIPPET // 2
    last = min(len(line) if end < 0 else end, first + SNIPPET)
    before = clean(line[first : error.column])
    stderr = session.streams.stderr
    stderr.write(f"  {before}{clean(line[error.column : last])}\n  {' ' * len(before)}^\n")
    stderr.flush()
