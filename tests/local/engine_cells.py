"""Cells for the engine's tests without a keeper: the same namespaces and addresses, and no gateway's sockets."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

from irons_local.cell.layout import Namespaces, Veth
from irons_local.errors import CellError

_SPACES = ("user", "net", "mnt")


class OwnCells:
    """`irons_local.engines.protocol.Cells`, each call in a process of its own."""

    def __init__(self) -> None:
        self.held: dict[str, Namespaces] = {}

    async def make(self, cell: str) -> None:
        assert cell not in self.held
        self.held[cell] = await asyncio.to_thread(_make)

    async def make_with_veth(self, cell: str) -> Veth:
        raise CellError(f"{cell}: only a keeper makes a veth")

    async def namespaces(self, cell: str) -> Namespaces:
        if cell not in self.held:
            raise CellError(f"there is no cell {cell}")
        return Namespaces(*(os.dup(fd) for fd in self.held[cell]))

    async def connect(self, cell: str, address: str, port: int, *, within: float) -> socket.socket:
        return await asyncio.to_thread(_connect, self.held[cell], address, port, within)

    async def adopt(self, cell: str, pid: int, started: int) -> None:
        if cell in self.held:
            return
        net = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        # The process's own mount and user namespaces are the sandbox's; a cell is only connected to after this.
        self.held[cell] = Namespaces(_owner(net), net, os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY))

    async def drop(self, cell: str) -> None:
        for fd in self.held.pop(cell, ()):
            os.close(fd)

    async def close(self) -> None:
        """Let go of all of them, as a keeper that is killed does."""
        for cell in list(self.held):
            await self.drop(cell)


def _owner(net: int) -> int:
    import fcntl

    return fcntl.ioctl(net, 0xB701)


def _make() -> Namespaces:
    read, write = os.pipe()
    child = subprocess.Popen(
        [sys.executable, "-P", __file__, "make"],
        stdin=subprocess.PIPE,
        stdout=write,
    )
    os.close(write)
    with os.fdopen(read) as out:
        pid = out.readline().strip()
        if not pid:
            raise CellError("the cell could not be made")
        spaces = Namespaces(*(os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY) for kind in _SPACES))
    assert child.stdin is not None
    child.stdin.close()
    child.wait()
    return spaces


def _connect(spaces: Namespaces, address: str, port: int, within: float) -> socket.socket:
    near, far = socket.socketpair()
    with near:
        child = subprocess.Popen(
            [sys.executable, "-P", __file__, "connect", address, str(port), str(within), str(far.fileno())]
            + [str(fd) for fd in spaces],
            pass_fds=[far.fileno(), *spaces],
        )
        far.close()
        data, fds, _, _ = socket.recv_fds(near, 4096, 1)
        child.wait()
    if not fds:
        number = json.loads(data or b"5")
        raise OSError(number, os.strerror(number))
    connection = socket.socket(fileno=fds[0])
    connection.setblocking(False)
    return connection


def _main() -> None:
    from irons_local.linux import namespaces, userns_main
    from irons_local.linux.idmap import outer_map

    words = sys.argv[2:]
    if sys.argv[1] == "make":
        idmap = outer_map()
        userns_main._descend(
            namespaces.NEWUSER | namespaces.NEWNS | namespaces.NEWNET,
            lambda pid: userns_main._map_outer(pid, idmap),
        )
        for line in ("link set lo up", "addr add 100.64.0.1/32 dev lo", "addr add 100.64.0.2/32 dev lo"):
            subprocess.run(["ip", *line.split()], check=True)
        Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")
        Path("/proc/sys/net/ipv4/ping_group_range").write_text("0 65535")
        print(os.getpid(), flush=True)
        sys.stdin.read()
        os._exit(0)
    address, port, within, out, user, net, _mount = words
    namespaces.setns(int(user), namespaces.NEWUSER)
    namespaces.setns(int(net), namespaces.NEWNET)
    answer = socket.socket(fileno=int(out))
    try:
        made = socket.create_connection((address, int(port)), float(within))
    except OSError as error:
        answer.send(json.dumps(error.errno or 110).encode())
    else:
        socket.send_fds(answer, [b"ok"], [made.fileno()])


if __name__ == "__main__":
    _main()
