"""Steps into exit codes: irons commands in this process, shell commands and pipelines next to it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TextIO

from irons.cli.main import run_words
from irons.errors import IronsError, UsageError
from irons.terminal.output import show_error
from irons.text import clean
from irons_repl.line.grammar import LineError, LineStep, Redirection, steps_of
from irons_repl.run.again import WORD
from irons_repl.run.external import INTERRUPTED, SHELL, code_of, left_to_programs, run_program
from irons_repl.run.own_words import LEAVES, answer, check_shell, leaving
from irons_repl.run.paging import may_be_long, paged, pager_of
from irons_repl.run.session import ShellSession
from irons_repl.run.signals import Ended

SNIPPET = 72
"""Columns of a line that are shown around the place where it stops making sense."""


_UNREAD = 128 + signal.SIGPIPE
_SHOWN = 200
"""Characters of a line that are shown where it can be run again."""


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
        typed, line = line, session.again.meant(line)
        if line != typed:
            session.streams.stderr.write(f"{clean(line)}\n")
        try:
            steps = steps_of(line)
        except LineError as error:
            _point(error, line, session)
            session.code = error.exit_code
            return session.code
        session.again.begin(line if len(steps) == 1 else "")
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
        self._offer_again()
        return session.code

    def _offer_again(self) -> None:
        """Say that what was refused can be run again, to a person."""
        session = self._session
        offered = session.again.news()
        if offered and session.streams.stdin_is_tty:
            session.streams.stderr.write(
                f"press r and Enter to run it again: {clean(offered, limit=_SHOWN)}\n"
            )
            session.flush()

    def _step(self, step: LineStep) -> int:
        session = self._session
        try:
            if not step.words:
                session.flush()
                check_shell(step.shell)
                return run_program((SHELL, "-c", step.shell), session.env, stdin=session.stdin)
            if step.shell:
                return self._piped(step)
            if step.output is not None:
                with _opened(step.output) as file:
                    return self._command(step.words, file)
            return self._shown(step.words)
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

    def _shown(self, words: Sequence[str]) -> int:
        """Run a command whose answer is for the terminal, through the pager where that is long."""
        session = self._session
        pager = ""
        if session.pages and session.streams.stdout_is_tty and may_be_long(words, session.host.tree):
            pager = pager_of(session.settings(in_passing=True), session.env)
        if not pager:
            return self._command(words, None)
        with paged(session.streams.stdout, pager, session.env) as stdout:
            return self._command(words, stdout)

    def _command(self, words: Sequence[str], output: TextIO | None) -> int:
        session = self._session
        own = answer(words, session, output)
        if own is not None:
            return own
        if words[0] in LEAVES:
            raise Leave(leaving(words))
        if words[0] == "irons":
            # A line from a shell's history or from a page; alone it asks for what is here already.
            words = words[1:] or ("--help",)
        if words[0] == "?":
            words = ("help", *words[1:])
        if tuple(words) == (WORD,) and not self._has_meaning(WORD):
            hint = f"{WORD} runs again what egress refused, after you have allowed it"
            raise UsageError("there is nothing to run again", hint=hint)
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

    def _has_meaning(self, word: str) -> bool:
        """Tell whether a word is a command of a plugin, or an alias of the configuration."""
        session = self._session
        return session.host.tree.find([word]) is not None or word in session.settings(in_passing=True).aliases

    def _piped(self, step: LineStep) -> int:
        """Run a command with its output going through a shell pipeline; a command that fails gives its code, else the pipeline does.

        A program in a sandbox that ended since the pipeline reads no more has not failed.
        """
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
        return ended if code in (0, _UNREAD) else code

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
    where = f"{error.message} (column {error.column + 1})"
    show_error(LineError(where, error.column, hint=error.hint), None, session.streams)
    begin = line.rfind("\n", 0, error.column) + 1
    end = line.find("\n", error.column)
    first = begin if error.column - begin < SNIPPET - 8 else error.column - SNIPPET // 2
    last = min(len(line) if end < 0 else end, first + SNIPPET)
    before = clean(line[first : error.column])
    stderr = session.streams.stderr
    stderr.write(f"  {before}{clean(line[error.column : last])}\n  {' ' * len(before)}^\n")
    stderr.flush()
