"""What running a program in a sandbox came to, as one object for programs: the answer of `exec -o json`."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Literal

from irons.errors import IronsError
from irons.record import NamedTuple

if TYPE_CHECKING:
    from irons_plugins.ssh.ending.denial_summary import Refusals, Tried
    from irons_plugins.ssh.execute.program import ProgramRun

KEPT = 1 << 20
"""Bytes of each stream that are kept: its last ones."""


class OutputTail:
    """What a program wrote to one stream, in bounded memory. It is a `Sink`: call it with each piece."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._tail = bytearray()
        self._total = 0

    def __call__(self, data: bytes) -> None:
        """Take a piece."""
        self._total += len(data)
        self._tail += data
        if len(self._tail) > 2 * self._kept:
            del self._tail[: -self._kept]

    def output(self) -> Output:
        """Return what is kept, from the first whole character on."""
        data = bytes(self._tail[-self._kept :])
        cut = self._total > len(data)
        if cut:
            # The first bytes may be the rest of a character (RFC 3629, 3).
            begin = next((at for at in range(min(4, len(data))) if data[at] & 0xC0 != 0x80), 0)
            text = _text(data[begin:])
        else:
            text = _text(data)
        if text is not None:
            return Output(text, "utf-8", cut)
        return Output(base64.b64encode(data).decode("ascii"), "base64", cut)


class Output(NamedTuple):
    """One stream: its end, how it is written here, and whether its beginning is left out."""

    text: str
    encoding: Literal["utf-8", "base64"]
    cut: bool


class Report(NamedTuple):
    """The object; keys are only ever added.

    Attributes:
        name: The sandbox.
        exit: The exit code that `irons exec` gives it: 124 out of time, 125 irons failed, 128+n killed by signal n.
        signal: The signal's number that killed the program; None where none is known to have.
        seconds: How long it ran.
        timed_out: Its time ran out.
        message: A sentence about its end; empty where the exit code says all.
        stdout: The end of its stdout.
        stdout_encoding: `utf-8`, or `base64` where it is not UTF-8.
        stdout_cut: Whether the beginning is left out.
        stderr: The end of its stderr, and likewise.
        stderr_encoding: As for stdout.
        stderr_cut: As for stdout.
        refused: What egress refused while it ran: host, port, reason, count; None where the server can't tell.
        unreachable: What egress let through and that reached no server, likewise.
        error: Why irons failed, with `code`, `message`, `hint`; None where the program ended.
    """

    name: str
    exit: int
    signal: int | None
    seconds: float
    timed_out: bool
    message: str
    stdout: str
    stdout_encoding: str
    stdout_cut: bool
    stderr: str
    stderr_encoding: str
    stderr_cut: bool
    refused: list[dict[str, object]] | None
    unreachable: list[dict[str, object]] | None
    error: dict[str, object] | None = None


def reported(
    name: str, ran: ProgramRun, stdout: OutputTail, stderr: OutputTail, refusals: Refusals | None
) -> Report:
    """Return the object for one program.

    Args:
        name: The sandbox.
        ran: What became of the program.
        stdout: What it wrote there.
        stderr: What it wrote there.
        refusals: The mark in the audit log from before it started; None where nothing is known of it.
    """
    ending = ran.ending
    try:
        found = refusals.found() if refusals is not None else None
    except IronsError:
        found = None
    return Report(
        name,
        ending.code,
        ending.signal,
        round(ran.seconds, 3),
        ending.timed_out,
        ending.sentence or (ending.error.message if ending.error else ""),
        *stdout.output(),
        *stderr.output(),
        None if found is None else _rows(found.refused),
        None if found is None else _rows(found.unreachable),
        None if ending.error is None else error_object(ending.error),
    )


def failed(name: str, error: IronsError) -> Report:
    """Return the object for a program that was never started."""
    nothing = OutputTail().output()
    return Report(
        name,
        error.exit_code,
        None,
        0.0,
        False,
        error.message,
        *nothing,
        *nothing,
        None,
        None,
        error_object(error),
    )


def error_object(error: IronsError) -> dict[str, object]:
    """Return an error as the commands show it on stderr."""
    return {"code": error.code, "message": error.message, "hint": error.hint, "exit": error.exit_code}


def _rows(tried: tuple[Tried, ...]) -> list[dict[str, object]]:
    return [
        {"host": each.host, "port": each.port, "reason": each.reason, "count": each.count} for each in tried
    ]


def _text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None
