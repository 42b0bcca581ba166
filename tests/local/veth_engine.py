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
from irons_local.progress import Progress

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
    _host: Space | None = None
    _init = INIT

    def __init__(self, image: str, kit: Kit) -> None:
        super().__init__(replace(kit, cells=_Plugged(kit.cells, kit.sandboxes), default_image=image))

    async def _boot(self, sandbox: str, home: Path) -> None:
        config = home / "upper/etc/ssh/tiny_config"
        config.write_text(config.read_text().replace("127.0.0.1", "0.0.0.0"))
        words = ["unshare", "--net", "--pid", "--mount", "--uts", "--fork"]
        words += ["sh", "-c", self._init, "sh", str(home), (home / "name").read_text(), str(self._image)]
        process = subprocess.Popen(  # noqa: ASYNC220 - at once, as in the tiny engine
            words, stdin=DEVNULL, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True
        )
        pid = _child(process)
        (home / "process").write_text(json.dumps([pid, _started(pid)]))
        asyncio.get_running_loop().run_in_executor(None, process.wait)
        made = noted(home)
        assert made is not None
        await asyncio.to_thread(self._connect, pid, made.name)

    def _connect(self, pid: int, outer: str) -> None:
        machine = Space(pid)
        machine.ok("ip", "link", "set", "lo", "up")
        plug_in(self._host, machine, outer)

    async def destroy(self, sandbox: str) -> None:
        """Remove what is left of the veth besides."""
        made = noted(self._kit.sandboxes / sandbox)
        await super().destroy(sandbox)
        if made is not None:
            await asyncio.to_thread(veth.remove_left, made)


class _Far:
    """The cells of a member, whenever it is connected."""

    def __init__(self, kit: Kit, member: str) -> None:
        self._kit, self._member = kit, member

    def __getattr__(self, name: str) -> Any:
        assert self._kit.members is not None
        return getattr(self._kit.members.cells_of(self._member), name)


FAR_INIT = """\
set -e
mount --make-rprivate /
mount -t proc proc /proc
mount -t tmpfs tmpfs /run
mkdir -p /run/sshd
mount --bind "$1/upper/etc/ssh" /etc/ssh
hostname "$2"
exec /usr/sbin/sshd -D -f /etc/ssh/tiny_config
"""


class FarEngine(VethEngine):
    """The same with its cells on a member of a fleet, and the files of this host: it is about the network alone.

    Args:
        member: its name.
        host: a process in the member's network namespace, to which the test engine can go.
        kit: see `TinyEngine`.
    """

    name = "far"

    _init = FAR_INIT

    def __init__(self, member: str, host: int, kit: Kit) -> None:
        super().__init__("", replace(kit, cells=_Far(kit, member)))
        self._host = Space(host)

    async def _unpack(self, progress: Progress) -> None:
        del progress

    async def recover(self) -> Sequence[str]:
        """The agent there takes up its cells by itself."""
        homes = sorted(self._kit.sandboxes.iterdir())
        return [home.name for home in homes if _process(home) is not None]

    async def destroy(self, sandbox: str) -> None:
        """Remove it; nothing of the veth is on this machine."""
        await TinyEngine.destroy(self, sandbox)


def running(sandboxes: Path) -> Sequence[Space]:
    """The machines that run, by a process in each."""
    found = (_process(home) for home in sorted(sandboxes.iterdir()))
    return [Space(process[0]) for process in found if process is not None]
