"""The tiny engine with machines that have a network of their own, on the outer end of a cell's veth; for tests alone."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import DEVNULL
from typing import Any

from tests.local.plugged import Space, plug_in
from tests.local.tiny_engine import INIT, TinyEngine, _child, _process, _started

from irons_local.cell import veth
from irons_local.engines.protocol import Cells, Kit, Veth

RECORD = "veth"


class _Plugged:
    """`Cells` whose cells have a veth, recorded in the sandbox's directory, and whose machines are at its other end."""

    def __init__(self, cells: Cells, sandboxes: Path) -> None:
        self._cells, self._sandboxes = cells, sandboxes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cells, name)

    async def make(self, cell: str) -> None:
        made = await self._cells.make_with_veth(cell)
        (self._sandboxes / cell / RECORD).write_text(json.dumps(made))

    async def adopt(self, cell: str, pid: int, started: int) -> None:
        del pid, started  # of the machine, which is in no namespace of the cell
        made = noted(self._sandboxes / cell)
        assert made is not None
        await self._cells.adopt(cell, made.pid, made.started)


def noted(home: Path) -> Veth | None:
    """The veth of a sandbox, as recorded; None where none is."""
    try:
        return Veth(*json.loads((home / RECORD).read_text()))
    except (OSError, ValueError):
        return None


class VethEngine(TinyEngine):
    """See the module."""

    name = "veth"

    def __init__(self, image: str, kit: Kit) -> None:
        super().__init__(replace(kit, cells=_Plugged(kit.cells, kit.sandboxes), default_image=image))

    async def _boot(self, sandbox: str, home: Path) -> None:
        config = home / "upper/etc/ssh/tiny_config"
        config.write_text(config.read_text().replace("127.0.0.1", "0.0.0.0"))
        words = ["unshare", "--net", "--pid", "--mount", "--uts", "--fork"]
        words += ["sh", "-c", INIT, "sh", str(home), (home / "name").read_text(), str(self._image)]
        process = subprocess.Popen(  # noqa: ASYNC220 - at once, as in the tiny engine
            words, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True
        )
        pid = _child(process)
        (home / "process").write_text(json.dumps([pid, _started(pid)]))
        asyncio.get_running_loop().run_in_executor(None, process.wait)
        made = noted(home)
        assert made is not None
        await asyncio.to_thread(_connect, pid, made.name)

    async def destroy(self, sandbox: str) -> None:
        """Remove what is left of the veth besides."""
        made = noted(self._kit.sandboxes / sandbox)
        await super().destroy(sandbox)
        if made is not None:
            await asyncio.to_thread(veth.remove_left, made)


def _connect(pid: int, outer: str) -> None:
    machine = Space(pid)
    machine.ok("ip", "link", "set", "lo", "up")
    plug_in(None, machine, outer)


def running(sandboxes: Path) -> Sequence[Space]:
    """The machines that run, by a process in each."""
    found = (_process(home) for home in sorted(sandboxes.iterdir()))
    return [Space(process[0]) for process in found if process is not None]
