"""Run the conformance suite against the `incus` engine: `python -m tests.fleet.conforming SOCKET ARCHIVE DIRECTORY [CHECK…]`.

A program of its own, because it runs in the network of the tests' Incus. It prints one line of JSON for each check, its name and
what does not hold, which is empty where it holds.
"""

from __future__ import annotations

import asyncio
import json
import sys
import traceback
from pathlib import Path

from irons_local.engines.conformance import CHECKS, Bench, NotConformingError
from irons_local.engines.incus.engine import IncusContainers
from irons_local.engines.incus.reach.ways import SocketWay
from irons_local.engines.protocol import Kit
from tests.fleet.cells import VethCells


async def run(path: Path, archive: str, work: Path, names: list[str]) -> None:
    """Run these checks, one after the other."""
    cells = VethCells()
    (work / "sandboxes").mkdir(parents=True)
    kit = Kit(cells, work / "images", work / "sandboxes", default_image=archive)
    for name in names:
        directory = work / name
        directory.mkdir()
        failure = ""
        try:
            async with Bench(lambda: IncusContainers(kit, SocketWay(path)), directory) as bench:
                await CHECKS[name](bench)
        except NotConformingError as error:
            failure = str(error)
        except Exception:  # noqa: BLE001 - whatever it is, it is what does not hold
            failure = traceback.format_exc()
        left = [home.name for home in (work / "sandboxes").iterdir()]
        failure = failure or (f"left: {left} {list(cells.held)}" if left or cells.held else "")
        print(json.dumps([name, failure]), flush=True)


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), sys.argv[4:] or list(CHECKS)))
