"""What running a program in a sandbox came to: the fields of `irons exec -o json`, typed."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Literal

from irons.errors import IronsError
from irons.record import NamedTuple

if TYPE_CHECKING:
    from typing import Self

    from irons_plugins.ssh.ending.denial_summary import Findings, Tried
    from irons_plugins.ssh.execute.program import ProgramRun
    from irons_plugins.ssh.execute.report import OutputTail


class ExecResult(NamedTuple):
    """What became of a program.

    Attributes:
        name: The sandbox.
        exit: Its exit code; 124 where its time ran out, 128+n where signal n killed it.
        signal: The signal that killed it; None where none is known to have.
        seconds: How long it ran.
        timed_out: Its time ran out, and all that it started was ended.
        message: A sentence about its end; empty where the exit code says all.
        stdout: The end of its stdout, as text or as base64.
        stdout_encoding: `utf-8`, or `base64` where it is not UTF-8.
        stdout_cut: Whether the beginning is left out.
        stderr: The end of its stderr, and likewise.
        stderr_encoding: As for stdout.
        stderr_cut: As for stdout.
        refused: What egress refused while it ran; None where the server can't tell.
        unreachable: What egress let through and that reached no server, likewise.
    """

    name: str
    exit: int
    signal: int | None
    seconds: float
    timed_out: bool
    message: str
    stdout: str
    stdout_encoding: Literal["utf-8", "base64"]
    stdout_cut: bool
    stderr: str
    stderr_encoding: Literal["utf-8", "base64"]
    stderr_cut: bool
    refused: tuple[Tried, ...] | None
    unreachable: tuple[Tried, ...] | None

    @property
    def ok(self) -> bool:
        """Whether it ended with exit code 0."""
        return self.exit == 0

    @property
    def stdout_bytes(self) -> bytes:
        """The end of its stdout, as it was written."""
        return _bytes(self.stdout, self.stdout_encoding)

    @property
    def stderr_bytes(self) -> bytes:
        """The end of its stderr, as it was written."""
        return _bytes(self.stderr, self.stderr_encoding)

    def check(self) -> Self:
        """Return this result. Raises `ProgramError` where the exit code is not 0."""
        if not self.ok:
            raise ProgramError(self)
        return self


class ProgramError(IronsError):
    """A program in a sandbox failed, and its caller wanted it to succeed. `result` is its result."""

    code = "program"

    def __init__(self, result: ExecResult) -> None:
        """Take the result."""
        why = result.message or f"exit code {result.exit}"
        super().__init__(f"the program in {result.name} failed: {why}")
        self.result = result


def result_of(
    name: str, ran: ProgramRun, stdout: OutputTail, stderr: OutputTail, found: Findings | None
) -> ExecResult:
    """Return the result of a program that ended."""
    ending = ran.ending
    return ExecResult(
        name,
        ending.code,
        ending.signal,
        round(ran.seconds, 3),
        ending.timed_out,
        ending.sentence,
        *stdout.output(),
        *stderr.output(),
        None if found is None else found.refused,
        None if found is None else found.unreachable,
    )


def _bytes(text: str, encoding: str) -> bytes:
    return base64.b64decode(text) if encoding == "base64" else text.encode()
