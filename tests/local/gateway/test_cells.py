"""Several cells, and the keeper and control plane that come and go."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator

import pytest
from tests.e2e.lab import eventually
from tests.local.gateway.stand import CELL, CellNet, Program, Stand, in_time, policy, quick

from irons_local import clocks
from irons_local.gateway.record.notify import CALM, LATER, MOST, PAUSE, QUIET, Notifier
from irons_local.gateway.service import CUT
from irons_local.ipc.aio import AsyncLink
from irons_local.ipc.framing import RequestError
from irons_local.ipc.link import Link
from irons_policy.ends import RuleEnd

WEB = "web.example.test"
SECOND = "sb_00000000000000bb"
GET = b"GET /hello HTTP/1.1\r\nHost: web.example.test\r\nConnection: close\r\n\r\n"


@pytest.fixture
def second(stand: Stand) -> Iterator[CellNet]:
    """Another cell, attached too."""
    net = CellNet()
    stand.attach(SECOND, net)
    try:
        yield net
    finally:
        net.close()


def from_second(second: CellNet, address: str, port: int) -> Program:
    """Connect in the second cell."""
    return Program(second.socket(), address, port)


def test_cells_have_policies_and_names_of_their_own(stand: Stand, second: CellNet) -> None:
    """What one may do another may not, and an address that means a name in one means nothing in the other."""
    stand.policy("deny", [WEB])
    stand.policy("deny", cell=SECOND)
    address = stand.resolve(WEB)
    with stand.connect(address, 80) as program:
        assert program.send(GET).finish().rest().startswith(b"HTTP/1.1 200")
    with from_second(second, address, 80) as program:
        assert program.send(GET).rest() == b"RESET"
    assert stand.event(cell=SECOND)["reason"] == "no name was ever given this address"


def test_a_flood_in_one_cell_leaves_the_other_its_share(stand: Stand, second: CellNet) -> None:
    """While one cell downloads with many connections, opens and drops more, another is answered promptly."""
    stand.policy("deny", [WEB])
    stand.policy("deny", ["203.0.113.0/24"], cell=SECOND)
    address = stand.resolve(WEB)
    busy = [stand.connect(address, 80) for _ in range(20)]
    for program in busy:
        program.send(b"GET /big/8 HTTP/1.1\r\nHost: web.example.test\r\n\r\n")
    over = threading.Event()

    def flood() -> None:
        while not over.is_set():
            with contextlib.suppress(OSError), stand.net.socket() as sock:
                sock.settimeout(0.2)
                sock.connect((address, 80))

    thread = threading.Thread(target=flood)
    thread.start()
    try:

        def median() -> float:
            times = []
            for _ in range(20):
                with from_second(second, "203.0.113.20", 80) as program:
                    program.send(GET.replace(b"web.example.test", b"203.0.113.20")).finish()
                    times.append(quick(program.rest))
            return sorted(times)[10]

        assert in_time(0.5, median)
    finally:
        over.set()
        thread.join()
        for program in busy:
            program.close()


def test_a_cell_that_cannot_be_attached_harms_no_other(stand: Stand) -> None:
    """Too few sockets, or none that fit, are refused with a reason."""
    stand.policy("deny", [WEB])
    assert stand.keeper is not None
    with pytest.raises(RequestError, match="7 sockets"):
        stand.keeper.request("attach", stand.net.fds[:3], cell=SECOND, ports={})
    with pytest.raises(RequestError, match="is not a cell"):
        stand.keeper.request("attach", stand.net.fds, cell="../x", ports={})
    with pytest.raises(RequestError, match="no operation"):
        stand.keeper.request("dance")
    assert stand.http(WEB, GET.decode().replace("\r", "")).startswith(b"HTTP/1.1 200")


def test_a_keeper_without_sockets_gets_them_back(stand: Stand) -> None:
    """`surrender` names the cells, and gives each one's sockets in their order."""
    assert stand.keeper is not None
    assert stand.keeper.request("surrender").body == {"cells": [CELL]}
    body, fds = stand.keeper.request("surrender", cell=CELL)
    assert body == {"ports": {"tcp": 15001, "dns": 53}}
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(fileno=fd)) for fd in fds]
        assert [sock.getsockname()[1] for sock in sockets[:6]] == [15001, 15001, 53, 53, 53, 53]


def test_a_policy_may_come_before_its_cell(stand: Stand) -> None:
    """A cell begins locked: what is known of a sandbox is active before its first packet."""
    assert stand.policy("deny", [WEB], cell=SECOND) == 0
    net = CellNet()
    try:
        stand.attach(SECOND, net)
        with net.socket(kind=socket.SOCK_DGRAM) as sock:
            sock.sendto(b"\x00\x01\x01\x00\x00\x01" + b"\0" * 6 + b"\x01x\x01y\0\0\1\0\1", ("100.64.0.1", 53))
            address = socket.inet_ntoa(sock.recv(512)[-4:])
        with from_second(net, address, 80) as program:
            assert b"no rule allows x.y" in program.send(b"GET / HTTP/1.1\r\nHost: x.y\r\n\r\n").rest()
    finally:
        net.close()


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"mode": "lax", "rules": []},
        {"mode": "deny", "rules": [{"pattern": "a b"}]},
        {"mode": "deny", "rules": 3},
    ],
)
def test_a_bad_policy_changes_nothing(stand: Stand, bad: dict[str, object]) -> None:
    """It is refused, and the one before stays active, now and after a restart."""
    stand.policy("deny", [WEB])
    with pytest.raises(RequestError):
        stand.ask("policy", cell=CELL, sandbox={}, policy=bad)
    kept = json.loads((stand.home / "policy" / f"{CELL}.json").read_text())
    assert kept["policy"]["rules"][0]["pattern"] == WEB
    assert stand.http(WEB, GET.decode().replace("\r", "")).startswith(b"HTTP/1.1 200")


def test_the_control_plane_hears_of_records(stand: Stand) -> None:
    """A notice names the run as soon as there is something new in it."""
    stand.policy("deny", [WEB])
    assert stand.server is not None
    stand.http(WEB, GET.decode().replace("\r", ""))
    body, _ = stand.server.recv()
    assert body == {"op": "audit", "run": stand.records()[0]["run"]}


def test_a_control_plane_that_does_not_read_is_not_told_over_and_over() -> None:
    """Notices to a full link become one, which comes once there is room."""

    async def run() -> None:
        near, far = socket.socketpair()
        near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        near.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while near.send(b"\0"):
                pass
        link, news = AsyncLink(near), Notifier(asyncio.get_running_loop())
        news.tell(link)
        for _ in range(8):
            news.wrote("1-2-0", refused=True)
            await asyncio.sleep(2 * PAUSE)
        assert len(asyncio.all_tasks()) == 2
        link.close()
        far.close()

    asyncio.run(run())


def test_a_refusal_is_told_before_what_is_let_through() -> None:
    """A refusal's notice comes at once; that of any other record later, later still while no one reads, and no sooner for another one."""

    class Clock(asyncio.SelectorEventLoop):
        """A loop whose time stands still."""

        now = 100.0

        def time(self) -> float:
            """The time."""
            return self.now

    loop = Clock()
    near, far = socket.socketpair()
    far.setblocking(False)

    def told(after: float) -> bool:
        loop.now += after
        for _ in range(8):
            loop.run_until_complete(asyncio.sleep(0))
        with contextlib.suppress(BlockingIOError):
            return bool(far.recv(4096))
        return False

    async def made() -> tuple[Notifier, AsyncLink]:
        return Notifier(asyncio.get_running_loop()), AsyncLink(near)

    news, link = loop.run_until_complete(made())
    news.tell(link)
    try:
        news.followed(60.0)
        news.wrote("1-2-0", refused=False)
        assert not told(LATER / 2)
        news.wrote("1-2-0", refused=False)
        assert told(LATER / 2)
        news.wrote("1-2-0", refused=False)
        assert not told(PAUSE)
        news.wrote("1-2-0", refused=True)
        assert told(0)
        news.wrote("1-2-0", refused=True)
        assert not told(PAUSE / 2)
        assert told(PAUSE / 2)
        news.wrote("1-2-0", refused=False)
        assert not told(CALM - LATER)
        assert told(LATER)
        # While no one reads it takes longer, until someone does.
        news.followed(CALM)
        loop.now += CALM
        news.wrote("1-2-0", refused=False)
        assert not told(QUIET - LATER)
        assert told(LATER)
        # While more is written it takes longer still, but not for ever.
        news.wrote("1-2-0", refused=False)
        for _ in range(int(MOST / QUIET) - 1):
            assert not told(QUIET / 2)
            news.wrote("1-2-0", refused=False)
            assert not told(QUIET / 2)
        news.wrote("1-2-0", refused=False)
        assert told(QUIET)
        news.wrote("1-2-0", refused=False)
        assert not told(QUIET / 2)
        news.wrote("1-2-0", refused=True)
        assert told(0)
        news.wrote("1-2-0", refused=False)
        assert not told(QUIET / 2)
        news.followed(60.0)
        assert told(LATER)
        assert not told(MOST)
    finally:
        link.close()
        far.close()
        loop.close()


def test_a_lost_control_plane_is_replaced(stand: Stand) -> None:
    """Its link may end at any time; the next one is greeted by a new `peer`."""
    assert stand.keeper is not None
    assert stand.server is not None
    stand.policy("deny", [WEB])
    stand.server.close()
    near, far = socket.socketpair()
    stand.keeper.send({"op": "peer"}, [far.fileno()])
    far.close()
    near.settimeout(60)
    with Link(near) as link:
        assert link.request("impact", cell=CELL, policy=policy("deny")).body == {"cut": 0}
        assert link.request("stats").body["cells"] == 1


def test_in_warn_a_mismatch_ends_when_the_mode_does(stand: Stand) -> None:
    """Two names on one connection pass in warn only: locking cuts it, though the rules allow its host."""
    stand.policy("warn", [WEB])
    with stand.connect(WEB, 80) as program:
        program.send(b"GET / HTTP/1.1\r\nHost: evil.example.test\r\n\r\n").until(b"}\n")
        assert stand.policy("deny", [WEB]) == 1
        assert program.rest() == b"RESET"


def test_nothing_is_left_open(stand: Stand) -> None:
    """After many connections of every kind the gateway has no more descriptors than before."""
    stand.policy("deny", [WEB, "mail.example.test:25"])
    stand.resolve(WEB)
    before = stand.ask("stats")["fds"]
    for _ in range(20):
        stand.http(WEB, GET.decode().replace("\r", ""))
        stand.http("evil.example.test", "GET / HTTP/1.1\nHost: evil.example.test\n\n")
        stand.connect("mail.example.test", 25).close()
        stand.connect(WEB, 443).close()
        stand.connect("203.0.113.1", 25).close()
    # Pipes are kept for reuse, two descriptors each.
    eventually(lambda: stand.ask("stats")["connections"] == 0)
    assert stand.ask("stats")["fds"] <= before + 8


def test_a_rule_ends_by_itself(stand: Stand) -> None:
    """Without a message to the gateway a connection that goes on is cut, and the next one is refused."""

    def ends(seconds: float) -> bool:
        stand.policy("deny", [WEB])
        with stand.connect(WEB, 80) as program:
            program.send(GET.replace(b"close", b"keep-alive"))
            assert program.until(b"}\n").startswith(b"HTTP/1.1 200")
            now, left = clocks.moment(), int(seconds * 1_000_000)
            until = {"until": RuleEnd(now.wall + 3_600_000_000).text, "until_up": now.up + left}
            cut = stand.policy("deny", [{"pattern": WEB, **until}])
            assert program.rest() == b"RESET"
            assert clocks.moment().up >= now.up + left
        return cut == 0

    # Where the gateway hears of it too late, that message cuts: the rule is given more time then.
    assert any(ends(seconds) for seconds in (0.5, 2, 8, 20))
    assert CUT in str(stand.event(host=WEB, verdict="allowed", outcome="reached"))
    with stand.connect(WEB, 80) as program:
        assert b"403 Forbidden" in program.send(GET).finish().rest()
    assert stand.event(host=WEB, verdict="blocked")["reason"] == f"no rule allows {WEB}"
