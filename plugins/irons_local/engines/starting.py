"""What engines share of a start: descriptors to hand on, the programs of ours that carry it out, and what answers at its end."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from asyncio.subprocess import PIPE
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from irons_local.cell.layout import Namespaces
from irons_local.engines.protocol import SSH_PORT, Cells
from irons_local.errors import CellError, EngineError
from irons_local.linux.idmap import IdMap, IdMapError, outer_map
from irons_local.linux.processes import end_all_in_net
from irons_local.linux.programs import search_path
from irons_local.linux.userns_call import end, program

LOOPBACK = "127.0.0.1"
_SAID_AT_MOST = 200


def console(ours: ExitStack, theirs: ExitStack) -> tuple[int, int]:
    """A pipe for what the first process says: our end, which does not block, and that process's, closed with their stacks.

    It is read only where a start fails. Afterwards no one reads it, and what the machine writes there is lost.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    ours.callback(os.close, read)
    theirs.callback(os.close, write)
    os.set_blocking(read, False)
    return read, write


def kept(stack: ExitStack, spaces: Namespaces) -> Namespaces:
    """Descriptors of namespaces, closed with the stack."""
    for descriptor in spaces:
        stack.callback(os.close, descriptor)
    return spaces


def note(stack: ExitStack, path: Path) -> int:
    """A file that the started process is written to, closed with the stack."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    stack.callback(os.close, descriptor)
    return descriptor


def crun() -> str:
    """The path of crun.

    Raises:
        EngineError: it is not installed.
    """
    found = shutil.which("crun", path=search_path())
    if found is None:
        raise EngineError("machine", "crun is not installed", "see `irons doctor`: crun")
    return os.path.realpath(found)


def subordinate_ids() -> IdMap:
    """The ids of sandboxes on this machine.

    Raises:
        EngineError: there are none.
    """
    try:
        return outer_map()
    except IdMapError as error:
        raise EngineError("machine", str(error), "see `irons doctor`: subordinate-ids") from error


async def carried_out(
    module: str, what: str, order: Mapping[str, Any], descriptors: Sequence[int], within: float
) -> dict[str, Any]:
    """Have a program of ours carry out an order, and return its answer.

    Args:
        module: the program.
        what: what it does, for an error.
        order: read by it as JSON from its standard input.
        descriptors: those that it inherits.
        within: seconds that it has.

    Raises:
        EngineError: it took too long, or gave no answer.
    """
    running = await asyncio.create_subprocess_exec(
        *program(module), stdin=PIPE, stdout=PIPE, stderr=PIPE, pass_fds=descriptors, cwd="/"
    )
    try:
        async with asyncio.timeout(within):
            out, complaint = await running.communicate(json.dumps(order).encode())
    except TimeoutError as error:
        raise EngineError("timeout", f"{what}: not done within {within:.0f} s") from error
    finally:
        await asyncio.shield(end(running))
    try:
        answer: dict[str, Any] = json.loads(out)
    except ValueError as error:
        lines = complaint.decode(errors="replace").strip().splitlines()
        why = lines[-1] if lines else "it reported no reason"
        raise EngineError("failed", f"{what} failed: {why}") from error
    return answer


async def greets(cells: Cells, cell: str, within: float) -> bool:
    """Tell whether the SSH server of a cell says who it is.

    Args:
        cells: the keeper.
        cell: the sandbox's.
        within: seconds that it has to accept, and again to greet: QEMU accepts where the guest does not answer.
    """
    try:
        connection = await cells.connect(cell, LOOPBACK, SSH_PORT, within=within)
    except (CellError, OSError):
        # Nothing answers yet; or the keeper is busy, or a new one is coming: who asks, asks again.
        return False
    with connection:
        try:
            async with asyncio.timeout(within):
                return (await asyncio.get_running_loop().sock_recv(connection, 4)) == b"SSH-"
        except (OSError, TimeoutError):
            return False


def last_line(console_end: int) -> str:
    """The last line on a console, to follow an error's text; "" where there is none."""
    with suppress(OSError):
        lines = os.read(console_end, 65536).decode(errors="replace").strip().splitlines()
        if lines:
            shown = "".join(each if each.isprintable() else "?" for each in lines[-1])
            return ": " + shown[:_SAID_AT_MOST]
    return ""


async def end_strays(cells: Cells, cell: str) -> None:
    """End what a start left behind that was killed between starting the first process and noting it.

    Raises:
        CellError: there is no such cell.
    """
    with ExitStack() as stack:
        await end_all_in_net(os.fstat(kept(stack, await cells.namespaces(cell)).net).st_ino)
