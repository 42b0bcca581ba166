"""Cells with a veth for the engine's tests without a keeper: the same network and no gateway behind it."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys

from irons_local.cell.layout import GATEWAY4, INNER, SANDBOX4, Namespaces, Veth, outer_name
from irons_local.errors import CellError
from irons_local.linux import namespaces
from tests.local.engine_cells import OwnCells

_HOLD = "import sys; print('ready', flush=True); sys.stdin.read()"


class VethCells(OwnCells):
    """`irons_local.engines.protocol.Cells`, with one process for each cell; for an engine whose machines have a network of their own."""

    def __init__(self) -> None:
        super().__init__()
        self._holders: dict[str, subprocess.Popen[str]] = {}

    async def make_with_veth(self, cell: str) -> Veth:
        making = asyncio.create_task(asyncio.to_thread(self._make_with_veth, cell))
        try:
            return await asyncio.shield(making)
        finally:
            # As with a keeper, whoever does not wait for the answer has the cell made all the same.
            await asyncio.wait((making,))

    def _make_with_veth(self, cell: str) -> Veth:
        if cell in self.held:
            raise CellError(f"there is a cell {cell} already")
        words = ["unshare", "--net", "--", sys.executable, "-I", "-c", _HOLD]
        holder = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert holder.stdout is not None
        holder.stdout.readline()
        name, pid = outer_name(cell), str(holder.pid)
        for line in (
            f"ip link add {name} type veth peer name {INNER} netns {pid}",
            f"nsenter -t {pid} -n ip link set lo up",
            f"nsenter -t {pid} -n ip address add {GATEWAY4}/30 dev {INNER}",
            f"nsenter -t {pid} -n ip link set {INNER} up",
        ):
            subprocess.run(line.split(), check=True)
        self._holders[cell] = holder
        self.held[cell] = Namespaces(
            *(os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in ("user", "net", "mnt"))
        )
        return Veth(name, holder.pid, namespaces.started(holder.pid) or 0)

    async def connect(self, cell: str, address: str, port: int, *, within: float) -> socket.socket:
        if cell not in self.held:
            raise CellError(f"there is no cell {cell}")
        # As a keeper does: the machine's loopback device is not in the cell.
        to = SANDBOX4 if address == "127.0.0.1" else address
        return await asyncio.to_thread(_connect, self.held[cell].net, to, port, within)

    async def adopt(self, cell: str, pid: int, started: int) -> None:
        if cell not in self.held:
            raise CellError(f"the cell {cell} is gone")

    async def drop(self, cell: str) -> None:
        holder = self._holders.pop(cell, None)
        if holder is not None:
            net = f"--net=/proc/{holder.pid}/ns/net"
            delete = ["nsenter", net, "ip", "link", "delete", INNER]
            await asyncio.to_thread(subprocess.run, delete, check=False)
            holder.communicate()
        await super().drop(cell)


def _connect(net: int, address: str, port: int, within: float) -> socket.socket:
    """Connect in another network namespace: that of a thread is its own."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        namespaces.setns(net, namespaces.NEWNET)
        try:
            connection = socket.create_connection((address, port), within)
        finally:
            namespaces.setns(here, namespaces.NEWNET)
    finally:
        os.close(here)
    connection.setblocking(False)
    return connection
