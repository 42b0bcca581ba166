"""Keeping the processes of a running sandbox from running for a moment: by its control group, else by SIGSTOP.

A file `frozen` in the sandbox's directory says that it may be frozen, so that a control plane that follows one that died then
lets it go on. The signal is visible inside: a shell may tell that a job was stopped.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

from irons_local.errors import EngineError
from irons_local.linux.cgroup import Groups
from irons_local.linux.processes import Process, in_namespace, is_alive, send

MARK = "frozen"
_WITHIN = 30.0
"""Seconds for all processes to stand still: less than a second, except where the machine has much else to do."""

_POLL = 0.002
_RESTS = ("T", "t", "Z", "X")


class Pause:
    """How long a sandbox was frozen.

    Attributes:
        seconds: 0 until it is over.
    """

    seconds = 0.0


@contextlib.asynccontextmanager
async def frozen(
    groups: Groups, sandbox: str, process: Process, home: Path, pause: Pause
) -> AsyncIterator[None]:
    """Freeze a sandbox while the body runs.

    Args:
        groups: the control groups.
        sandbox: its id.
        process: its process 1.
        home: its directory.
        pause: gets how long it took.

    Raises:
        EngineError: its processes go on within `_WITHIN` seconds of being asked to stop.
    """
    (home / MARK).touch(mode=0o600)
    begun = time.monotonic()
    stopped: list[int] = []
    try:
        try:
            if not await _freeze_group(groups, sandbox):
                await _stop_all(process, stopped)
        except TimeoutError as error:
            raise EngineError("timeout", f"its processes did not stop within {_WITHIN:.0f} s") from error
        yield
    finally:
        groups.freeze(sandbox, frozen=False)
        _continue(process, stopped)
        pause.seconds = time.monotonic() - begun
        (home / MARK).unlink(missing_ok=True)


async def thaw(groups: Groups, sandbox: str, process: Process, home: Path) -> None:
    """Let a sandbox go on that a process which died had frozen; others are left as they are."""
    if not (home / MARK).exists():
        return
    groups.freeze(sandbox, frozen=False)
    members = await asyncio.to_thread(_members, process)
    _continue(process, [pid for pid in members if _state(pid) == "T"])
    (home / MARK).unlink(missing_ok=True)


async def _freeze_group(groups: Groups, sandbox: str) -> bool:
    """Freeze its control group; False where there is none that can be."""
    if not groups.freeze(sandbox, frozen=True):
        return False
    async with asyncio.timeout(_WITHIN):
        while True:
            if groups.is_frozen(sandbox):
                return True
            await asyncio.sleep(_POLL)


async def _stop_all(process: Process, stopped: list[int]) -> None:
    """Stop its processes until none is new and none still runs; `stopped` gets those that this stopped."""
    known: set[int] = set()
    async with asyncio.timeout(_WITHIN):
        while True:
            members = await asyncio.to_thread(_members, process)
            fresh = [pid for pid in members if pid not in known]
            for pid in fresh:
                known.add(pid)
                if _state(pid) != "T":
                    stopped.append(pid)
                    _signal(process, pid, signal.SIGSTOP)
            if not fresh and all(_state(pid) in _RESTS for pid in members):
                return
            await asyncio.sleep(_POLL)


def _continue(process: Process, stopped: list[int]) -> None:
    for pid in stopped:
        _signal(process, pid, signal.SIGCONT)


def _members(process: Process) -> list[int]:
    if not is_alive(process):
        return []
    with contextlib.suppress(OSError):
        return list(in_namespace("pid", _space(process.pid)))
    return []


def _signal(process: Process, pid: int, number: signal.Signals) -> None:
    """Signal a process, if it is one of the sandbox."""
    with contextlib.suppress(OSError):
        descriptor = os.pidfd_open(pid)
        try:
            # Asked only now, when the number can no longer come to mean another process.
            if _space(pid) == _space(process.pid):
                send(descriptor, number)
        finally:
            os.close(descriptor)


def _space(pid: int) -> int:
    return Path(f"/proc/{pid}/ns/pid").stat().st_ino


def _state(pid: int) -> str:
    """Return the state of a process, as proc(5) has it; `X` where it is gone."""
    try:
        return (
            Path(f"/proc/{pid}/stat")
            .read_text(encoding="utf-8", errors="replace")
            .rpartition(")")[2]
            .split()[0]
        )
    except (OSError, IndexError):
        return "X"
