"""TCP sockets of the local backend: every one is made in one place, and none of them delays small writes."""

from __future__ import annotations

import ast
import asyncio
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest

import irons_local
from irons_local.cell import sockets
from irons_local.cell.layout import SOCKETS, Ports
from irons_local.config.server import ServerConfig
from irons_local.control.http.listeners import tcp_listener
from irons_local.control.sandbox.ssh_ports import SshPorts
from irons_local.gateway.budget.watch import FairLoop
from irons_local.gateway.reach.dial import dial
from irons_local.linux import tcp

PRODUCT = Path(irons_local.__path__[0]).parent


def prompt(sock: socket.socket) -> bool:
    """Whether a socket sends small packets at once, and asyncio knows that it is TCP."""
    return sock.proto == socket.IPPROTO_TCP and bool(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_what_a_listener_accepts_is_prompt_and_tuned(address: str) -> None:
    """The options of a listener are those of every connection that it accepts."""
    with tcp.tcp_listener(address, 0, 8) as listening:
        assert prompt(listening)
        tcp.tune(listening)
        with socket.create_connection(listening.getsockname()[:2], timeout=60):
            accepted, _ = listening.accept()
            with accepted:
                assert prompt(accepted)
                assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == tcp.KEEPALIVE_IDLE


def test_every_listener_and_dial_is_prompt() -> None:
    """The API's listener, a sandbox's SSH port, a cell's listeners and what the gateway dials send at once."""

    async def nothing(_scope: object, _receive: object, _send: object) -> None:
        """Never called."""

    async def nowhere() -> socket.socket:
        raise ConnectionRefusedError

    async def work() -> None:
        api = tcp_listener(nothing, ServerConfig(host="127.0.0.1", port=0))
        with api._sock as listening:
            assert prompt(listening)
            wire = await dial(loop, ip_address("127.0.0.1"), listening.getsockname()[1])
            assert prompt(wire.sock)
            wire.close()
        doors = SshPorts("127.0.0.1")
        port = await doors.open("sb_1", nowhere, port=None)
        assert port
        for each in doors._doors["sb_1"].server.sockets:
            assert each.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await doors.close_all()

    loop = FairLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(work())


def test_a_cells_listeners_are_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sockets that capture TCP, and the name server's, hand the option on to what they accept."""
    monkeypatch.setattr(sockets, "_log", sockets._nothing)
    monkeypatch.setattr(sockets, "_transparent", lambda family, _, __: tcp.tcp_socket(family))
    monkeypatch.setattr(sockets, "GATEWAY4", "127.0.0.1")
    monkeypatch.setattr(sockets, "GATEWAY6", "::1")
    made = dict(zip(SOCKETS, sockets.make(Ports(tcp=0, dns=0)), strict=True))
    try:
        assert all(prompt(made[name]) for name in ("tcp4", "dns_tcp4"))
    finally:
        for each in made.values():
            each.close()


@pytest.mark.slow
def test_tcp_sockets_are_made_in_one_place() -> None:
    """No module but `tcp` makes a TCP socket of its own: it would lack the options."""
    found = []
    for path in PRODUCT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            call = ast.unparse(node) if isinstance(node, ast.Call) else ""
            made = call.startswith("socket.socket(") and "SOCK_STREAM" in call and "AF_UNIX" not in call
            if path.name != "tcp.py" and (
                made or call.startswith(("socket.create_connection(", "socket.create_server("))
            ):
                found.append(f"{path.name}:{node.lineno}: {call}")  # type: ignore[attr-defined]
    assert found == []
