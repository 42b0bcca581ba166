"""What a keeper takes over from the one before it: workers of the gateway that still run, and the cells they serve."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from irons_local.cell.layout import Ports
from irons_local.ipc.framing import Body, LinkError, RequestError
from irons_local.ipc.link import Link
from irons_local.ipc.messages import Surrender, call_of
from irons_local.keeper.cells.registry import CellRegistry
from irons_local.keeper.supervise.spawn import Plan
from irons_local.keeper.supervise.supervisor import Found, end_found, find, say

_SURRENDER_WITHIN = 20.0
"""Seconds for each answer of a worker: one that hangs is ended, one that waits for a busy machine serves on."""


class Left(NamedTuple):
    """What an earlier keeper left.

    Attributes:
        workers: those that go on, by their numbers.
        said: notices that each of them sent in between, such as that it is alive.
        served: every worker that ever served a cell, the one of now last.
        unserved: cells whose gateway was ended, and which no worker was given before.
    """

    workers: Mapping[int, Found]
    said: Mapping[int, list[Body]]
    served: Mapping[str, list[int]]
    unserved: frozenset[str]


def take_over(
    plan: Plan,
    plan_of: Callable[[int], Plan],
    version: str,
    kept: Path,
    held: CellRegistry,
    single: Found | None,
) -> Left:
    """Hold again every cell that a living worker serves, and end those that are not to go on.

    Args:
        plan: of the process that all workers are named after.
        plan_of: of each of them.
        version: workers of another one are ended.
        kept: the file that says which worker serves which cell.
        held: where the cells are held.
        single: a gateway that served all cells by itself.
    """
    noted = _noted(kept)
    served = dict(noted)
    if single is not None:
        _surrendered(Link(single.sock), None, held)
        end_found(single)
        plan.socket.unlink(missing_ok=True)
    unserved = frozenset(cell.name for cell in held)
    workers: dict[int, Found] = {}
    said: dict[int, list[Body]] = {}
    for number in numbers(plan):
        process = find(plan_of(number))
        if process is None:
            continue
        given = {cell for cell, had in noted.items() if had[-1] == number}
        link = Link(process.sock)
        before = {cell.name for cell in held}
        if _surrendered(link, given if noted else None, held) and process.version == version:
            workers[number] = process
            for cell in held:
                if cell.name not in before:
                    # Rules go where a cell is served, also where the file that says so was lost.
                    served.setdefault(cell.name, [number])
            said[number] = link.notices()
        else:
            end_found(process)
    return Left(workers, said, served, unserved)


def numbers(plan: Plan) -> list[int]:
    """The numbers of the workers that are noted next to each other, whether they run or not."""
    prefix = f"{plan.name}-"
    names = (path.stem.removeprefix(prefix) for path in plan.state.glob(f"{prefix}*.process"))
    return sorted(int(name) for name in names if name.isdecimal())


def remove(plan: Plan) -> None:
    """Remove what would lead the next keeper to a process that is gone."""
    for path in (plan.process, plan.socket):
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _noted(kept: Path) -> dict[str, list[int]]:
    try:
        noted = json.loads(kept.read_text("utf-8"))
        return {str(cell): [int(number) for number in had] for cell, had in noted.items() if had}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _surrendered(link: Link, given: Collection[str] | None, held: CellRegistry) -> bool:
    """Hold again what a living worker serves.

    Args:
        link: to the worker.
        given: the cells that it was given; None where that is not known.
        held: where they are held.

    Returns:
        Whether it can go on.
    """
    link.sock.settimeout(_SURRENDER_WITHIN)
    try:
        op, _ = call_of(Surrender())
        for name in link.request(op).body["cells"]:
            if given is not None and name not in given:
                raise ValueError(f"{name!r} was not given to it")
            cell = link.request(op, **call_of(Surrender(name))[1])
            try:
                held.restore(name, Ports(**cell.body["ports"]), cell.fds)
            except BaseException:
                cell.close()
                raise
    except (LinkError, RequestError, OSError, LookupError, TypeError, ValueError) as error:
        say(f"the gateway that was found cannot be used, and is ended: {error}")
        return False
    return True
