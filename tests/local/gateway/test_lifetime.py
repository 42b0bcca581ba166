"""What a gateway keeps, and what it survives: restarts, full disks, floods, and cells that come and go."""

from __future__ import annotations

import contextlib
import os
import resource
import shutil
import socket
from pathlib import Path

from tests.e2e.lab import Lab, eventually
from tests.local.gateway.stand import BANNER, CELL, CellNet, Program, Stand

from irons_local.forkserver.confine import GATEWAY_ID

SECOND = "sb_00000000000000bb"
WEB, OTHER, EVIL = "web.example.test", "other.example.test", "evil.example.test"
GET = "GET /hello HTTP/1.1\nHost: {}\nConnection: close\n\n"


def test_a_log_that_cannot_be_written_refuses_everything(stand: Stand) -> None:
    """Without a record there is no contact; with room again there is."""
    stand.policy("deny", [WEB])
    stand.resolve(WEB)
    assert stand.process is not None
    before = resource.prlimit(stand.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(stand.process.pid, resource.RLIMIT_FSIZE, (10, before[1]))
    with stand.connect(WEB, 80) as program:
        assert program.send(b"GET / HTTP/1.1\r\nHost: web.example.test\r\n\r\n").rest() == b"RESET"
    assert not stand.arrivals()
    resource.prlimit(stand.process.pid, resource.RLIMIT_FSIZE, before)
    assert stand.http(WEB, GET.format(WEB)).startswith(b"HTTP/1.1 200")
    stand.event(kind="close")
    records = stand.records()
    # The attempt that failed may be told of after all, once there is room.
    assert [each["kind"] for each in records if each["kind"] != "event"] == ["open", "verdict", "close"]
    assert [each["seq"] for each in records] == list(range(1, len(records) + 1))


def test_without_a_policy_everything_is_refused(stand: Stand) -> None:
    """A cell whose policy is not known gets nowhere, and the log says why."""
    answer = stand.http(WEB, GET.format(WEB))
    assert b"no policy is known" in answer
    event = stand.event(host=WEB)
    assert (event["verdict"], event["cause"], event["outcome"]) == ("blocked", "no-policy", "refused")
    assert not stand.arrivals()


def test_a_killed_gateway_serves_on_from_what_it_kept(stand: Stand) -> None:
    """After kill -9 policy and names hold without anyone telling them again; the log's runs are two."""
    stand.policy("deny", [WEB])
    address = stand.resolve(WEB)
    other = stand.resolve(EVIL)
    with stand.connect(WEB, 80) as program:
        program.send(b"GET / HTTP/1.1\r\nHost: web.example.test\r\n\r\n").until(b"}\n")
        stand.kill()
        assert program.rest() in {b"", b"RESET"}
    stand.start()
    assert b"203.0.113.10" in stand.http(address, GET.format(WEB))
    assert b"irons egress allow" in stand.http(other, GET.format(EVIL))
    assert (stand.resolve(WEB), stand.resolve(EVIL)) == (address, other)
    assert stand.resolve(OTHER) not in {address, other}
    eventually(lambda: [each["kind"] for each in stand.records()].count("close") == 1)
    assert len({each["run"] for each in stand.records()}) == 2


def test_what_was_refused_for_want_of_a_gateway_is_one_event(stand: Stand) -> None:
    """Connections that the keeper reset while no gateway lived are reported to the next one, and counted in the log."""
    assert stand.keeper is not None
    stand.keeper.send({"op": "missed", "cell": CELL, "count": 7})
    eventually(lambda: [each["count"] for each in stand.records() if each["kind"] == "dropped"] == [7])


def test_a_cell_that_is_forgotten_leaves_nothing(stand: Stand) -> None:
    """`forget` ends its connections and removes its policy and names."""
    stand.policy("deny", ["mail.example.test:25"])
    with stand.connect("mail.example.test", 25) as program:
        program.read(len(BANNER))
        stand.ask("forget", cell=CELL)
        assert program.rest() == b"RESET"
    assert not list((stand.home / "policy").iterdir())
    assert not list((stand.home / "names").iterdir())
    eventually(lambda: stand.ask("stats")["connections"] == 0)


def test_a_cell_beyond_its_caps_waits(patient: Stand) -> None:
    """Silent connections beyond the cap wait, unread; those before stay, and all are freed when they end."""
    stand = patient
    stand.policy("deny", [WEB])
    address = stand.resolve(WEB)
    held = [stand.net.socket() for _ in range(600)]
    for sock in held:
        sock.connect((address, 443))
    eventually(lambda: stand.ask("stats")["undecided"] == 512)
    assert stand.ask("stats")["connections"] == 512
    for sock in held:
        sock.close()
    eventually(lambda: stand.ask("stats")["connections"] == 0)
    assert stand.http(WEB, GET.format(WEB)).startswith(b"HTTP/1.1 200")


def test_few_descriptors_are_shared_by_all_cells(stand: Stand) -> None:
    """Where the machine allows few open files, a cell that wants all of them is refused, on the record, and another is served."""
    stand.kill()
    stand.start(files="256:1024", patient=True)
    assert stand.ask("stats")["files"] == 1024
    second = CellNet()
    stand.attach(SECOND, second)
    stand.policy("deny", [WEB, "mail.example.test:25"])
    stand.policy("deny", ["203.0.113.20"], cell=SECOND)
    try:
        with contextlib.ExitStack() as held:
            mail = stand.resolve("mail.example.test")
            greeted = 0
            while _greeted(held.enter_context(stand.connect(mail, 25))):
                greeted += 1
            assert 40 < greeted < 1024
            web = stand.resolve(WEB)
            for _ in range(500):
                # Silent ones: each takes a descriptor and no more.
                held.enter_context(stand.connect(web, 443))
            for port in (25, 443):
                assert "limit of open files" in stand.event(port=port, verdict="blocked")["reason"]
            assert stand.ask("stats")["fds"] < 900
            served = [held.enter_context(Program(second.socket(), "203.0.113.20", 80)) for _ in range(20)]
            for program in served:
                program.send(b"GET /hello HTTP/1.1\r\nHost: 203.0.113.20\r\n\r\n")
            assert all(program.read(12) == b"HTTP/1.1 200" for program in served)
        eventually(lambda: stand.ask("stats")["connections"] == 0)
        assert stand.http(WEB, GET.format(WEB)).startswith(b"HTTP/1.1 200")
    finally:
        second.close()


def _greeted(program: Program) -> bool:
    with contextlib.suppress(ConnectionError):
        return not program.gone and program.read(len(BANNER)) == BANNER
    return False


def test_as_a_user_of_its_own_without_rights_it_does_all_the_same(stand: Stand) -> None:
    """Root's gateway can do nothing but use its descriptors and its directory, and needs no more."""
    stand.stop()
    os.chown(stand.home, GATEWAY_ID, GATEWAY_ID)
    for path in stand.home.iterdir():
        shutil.rmtree(path)
    stand.start(confined=True)
    stand.policy("deny", [WEB, "mail.example.test:25"])
    assert stand.process is not None
    status = Path(f"/proc/{stand.process.pid}/status").read_text()
    assert f"Uid:\t{GATEWAY_ID}\t{GATEWAY_ID}\t{GATEWAY_ID}" in status
    assert "CapEff:\t0000000000000000" in status
    assert stand.http(WEB, GET.format(WEB)).startswith(b"HTTP/1.1 200")
    assert stand.http("evil.example.test", GET.format(EVIL)).startswith(b"HTTP/1.1 403")
    with stand.tls(WEB, WEB):
        pass
    with stand.connect("mail.example.test", 25) as program:
        assert program.read(len(BANNER)) == BANNER
    assert b'"mode": "deny"' in stand.http("irons.internal", "GET / HTTP/1.1\nHost: irons.internal\n\n")
    assert "nowhere" in stand.http("nowhere.test", GET.format("nowhere.test")).decode()
    with stand.net.socket(kind=socket.SOCK_DGRAM) as sock, contextlib.suppress(OSError):
        sock.sendto(b"x", (stand.resolve(WEB), 443))
    stand.event(protocol="udp")


def test_a_killed_gateway_still_knows_the_ports_of_irons_itself(stand: Stand) -> None:
    """No pin opens irons' own port, also before a control plane has spoken to a fresh gateway."""
    own = "198.51.100.2"
    listener = stand.lab_listener(own)
    with listener:
        port = int(listener.getsockname()[1])
        stand.ask("listeners", listeners=[[own, port]])
        stand.policy("deny", [{"pattern": f"{own}:{port}", "private": [f"{own}/32"]}])
        for _ in range(2):
            with stand.connect(own, port) as program:
                program.send(b"x")
                assert program.rest() == b"RESET"
            assert "irons itself" in stand.event(host=own)["reason"]
            stand.kill()
            stand.start()
        # What another worker keeps for all is not written here.
        stand.ask("listeners", listeners=[], keep=False)
        assert str(port) in (stand.home / "listeners").read_text()
        stand.ask("listeners", listeners=[])
        with stand.connect(own, port) as program:
            program.send(b"x")
            listener.accept()[0].close()


def test_what_was_refused_without_a_gateway_is_recorded(lab: Lab, tmp_path: Path) -> None:
    """Reports that waited are read, those there was no room for are counted, and so is what the keeper refused."""
    net = CellNet()
    stand = Stand(lab, tmp_path, net)
    try:
        stand.start()
        stand.policy("deny")
        address = stand.resolve(WEB)
        stand.kill()
        with stand.net.socket(kind=socket.SOCK_DGRAM) as sock:
            for _ in range(3000):
                with contextlib.suppress(OSError):
                    sock.sendto(b"x", (address, 443))
        stand.start()
        assert stand.keeper is not None
        stand.keeper.send({"op": "missed", "cell": CELL, "count": 7})
        eventually(lambda: stand.counted() == 3007, what="all to be counted")
        assert stand.event(protocol="udp", host=WEB)["count"] > 50
        assert stand.event(kind="dropped", count=7)["reason"] == "refused while there was no gateway"
        stand.kill()
        stand.start()
        assert stand.http(address, GET.format(WEB)).startswith(b"HTTP/1.1 403")
        stand.event(protocol="http")
        assert stand.counted() == 3008
    finally:
        stand.stop()
        net.close()
