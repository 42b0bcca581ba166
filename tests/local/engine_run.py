"""A program that runs the conformance checks and attacks on the namespace engine as whoever starts it: DIRECTORY IMAGE.tar [CHECK]...

It ends, its sandboxes destroyed, when its standard input does.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.local.engine_attacks import ATTACKS
from tests.local.engine_cells import OwnCells
from tests.local.engine_layers import LAYERS

from irons_local.engines.conformance import CHECKS, Bench
from irons_local.engines.namespace.engine import NamespaceEngine
from irons_local.engines.protocol import Kit
from irons_local.images.catalog import Images


async def _main(directory: Path, archive: Path, names: list[str]) -> dict[str, str]:
    running = asyncio.current_task()
    assert running is not None
    # Whoever started this ends it so, also by being killed.
    asyncio.get_running_loop().add_reader(0, _leave, running)
    try:
        return await _work(directory, archive, names)
    finally:
        asyncio.get_running_loop().remove_reader(0)
        engine = NamespaceEngine(Kit(OwnCells(), directory / "images", directory / "sandboxes"))
        for left in await asyncio.to_thread(_sandboxes, directory):
            await engine.destroy(left)


def _leave(running: asyncio.Task[dict[str, str]]) -> None:
    if not os.read(0, 1):
        asyncio.get_running_loop().remove_reader(0)
        running.cancel()


def _sandboxes(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "sandboxes").glob("sb_*"))


async def _work(directory: Path, archive: Path, names: list[str]) -> dict[str, str]:
    images = Images(directory / "images", directory / "sandboxes")
    await images.import_(archive, "debian")
    cells = OwnCells()
    kit = Kit(cells, directory / "images", directory / "sandboxes")
    results: dict[str, str] = {}
    checks: dict[str, Callable[[Bench], Awaitable[None]]] = {**CHECKS, **ATTACKS}
    checks |= {name: functools.partial(check, images) for name, check in LAYERS.items()}
    for name in names or checks:
        bench = directory / "bench"
        await asyncio.to_thread(bench.mkdir)
        begun = time.monotonic()
        try:
            async with Bench(lambda: NamespaceEngine(kit), bench) as made:
                await checks[name](made)
            results[name] = ""
        except Exception:  # noqa: BLE001 (each check's failure is a result, no matter what it is)
            results[name] = traceback.format_exc()
        print(f"{name}: {time.monotonic() - begun:.2f} s", file=sys.stderr)
    left = [entry.name for entry in await asyncio.to_thread(os.scandir, directory / "sandboxes")]
    results["nothing_is_left"] = ", ".join(left + list(cells.held))
    await images.remove("debian")
    results["no_image_is_left"] = ", ".join(image.name for image in images.listed())
    return results


if __name__ == "__main__":
    Path(sys.argv[1]).mkdir(mode=0o700)
    print(json.dumps(asyncio.run(_main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))))
