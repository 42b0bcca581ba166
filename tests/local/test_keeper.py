"""The keeper and the processes it keeps: each of them may be killed at any time, and all is served again."""

from __future__ import annotations

import os
import select
import signal
import socket
from pathlib import Path

import pytest
from tests.local.people import WHOEVER, Kept, eventually, slay

from irons_local.forkserver.confine import GATEWAY_ID
from irons_local.ipc.framing import LinkClosedError, RequestError
from irons_local.ipc.link import Link
from irons_local.keeper import daemonize
from irons_local.linux.namespaces import CAP_DAC_READ_SEARCH


def test_a_killed_gateway_is_replaced_and_nothing_is_lost(kept: Kept) -> None:
    """A connection made while the gateway is dead waits, and is judged by the next gateway."""
    cells = [kept.make() for _ in range(3)]
    before = kept.status()["gateway"]["pid"]
    os.kill(before, signal.SIGKILL)
    assert [kept.judged(cell) for cell in cells] == ["203.0.113.7 443"] * 3
    assert kept.status()["gateway"]["pid"] != before


@WHOEVER
def test_a_gateway_that_hangs_is_replaced(kept: Kept) -> None:
    """One that has reported that it is alive and stops reporting it is ended and started again, with no one asking; cells are served again."""
    cell = kept.make()
    before = kept.status()["gateway"]["pid"]
    (kept.person.paths.gateway / "beats").touch()
    os.kill(before, signal.SIGKILL)
    mute = eventually(
        lambda: (pid := kept.status()["gateway"]["pid"]) not in (None, before) and pid, what="the next one"
    )
    eventually(lambda: kept.status()["gateway"]["pid"] not in (None, mute), what="it to be replaced")
    assert kept.judged(cell) == "203.0.113.7 443"


@WHOEVER
def test_a_gateway_that_hangs_right_after_it_was_taken_over_is_replaced(kept: Kept) -> None:
    """What it reported to the next keeper while that took it over counts: that it is alive, and its memory."""
    cell = kept.make()
    mute = kept.status()["gateway"]["pid"]
    kept.kill()
    (kept.person.paths.gateway / "beats").touch()
    taken = kept.start()["gateways"][0]
    assert (taken["pid"], taken["memory"]) == (mute, 1 << 20)
    eventually(lambda: kept.status()["gateway"]["pid"] not in (None, mute), what="it to be replaced")
    assert kept.judged(cell) == "203.0.113.7 443"


@WHOEVER
def test_a_killed_control_plane_is_replaced(kept: Kept) -> None:
    """The control plane comes back, is linked to the gateway again, and the cells do not notice."""
    cell = kept.make()
    before = kept.status()
    peers = len(kept.heard(peer=1))
    os.kill(before["server"]["pid"], signal.SIGKILL)
    after = eventually(
        lambda: (
            (found := kept.status())["server"]["pid"] not in (None, before["server"]["pid"])
            and found["ready"]
            and found
        ),
        what="it to be ready",
    )
    assert after["gateway"]["pid"] == before["gateway"]["pid"]
    eventually(lambda: len(kept.heard(peer=1)) > peers, what="the gateway to hear of its new peer")
    assert kept.judged(cell) == "203.0.113.7 443"


def test_a_killed_keeper_is_followed_by_one_that_finds_everything(kept: Kept) -> None:
    """Gateway, control plane and cells outlive their keeper; the next one takes them over as they are."""
    cell = kept.make()
    before = kept.status()
    inode = kept.python(cell, "import os; print(os.stat('/proc/self/ns/net').st_ino)")
    kept.kill()
    after = kept.start()
    assert after["ready"]
    assert after["cells"] == 1
    for name in ("gateway", "server"):
        assert after[name]["pid"] == before[name]["pid"]
    assert kept.judged(cell) == "203.0.113.7 443"
    assert kept.python(cell, "import os; print(os.stat('/proc/self/ns/net').st_ino)") == inode
    kept.make()
    os.kill(after["gateway"]["pid"], signal.SIGKILL)
    assert kept.judged(cell) == "203.0.113.7 443"


def test_everything_killed_is_put_together_again(kept: Kept) -> None:
    """With all three gone, the next keeper adopts a cell through a process that lives in it."""
    cell = kept.make()
    sleeper = kept.background(cell, "sleep", "600")
    before = kept.status()
    kept.kill()
    slay(*(before[name]["pid"] for name in ("gateway", "server")))
    assert kept.start()["cells"] == 0
    adopted = kept.ask("cell.adopt", cell=cell, pid=sleeper["pid"], started=sleeper["started"])
    assert adopted == {"ports": {"tcp": 15001, "dns": 53}, "fresh": True}
    assert kept.ask("cell.adopt", cell=cell, pid=sleeper["pid"], started=sleeper["started"])["fresh"] is False
    eventually(lambda: kept.heard(attach=cell)[1:], what="the gateway to have the cell")
    assert kept.judged(cell) == "203.0.113.7 443"
    assert kept.inside(cell, "ip", "-o", "link")[0] == 0


def test_a_keeper_is_not_adopted_by_mistake(kept: Kept) -> None:
    """A process outside of any cell, and a pid that now is another process, are refused."""
    mine = os.getpid() if kept.person.uid == 0 else kept.status()["pid"]
    started = int(Path(f"/proc/{mine}/stat").read_text().rpartition(")")[2].split()[19])
    for born, code in ((started, "state"), (started + 1, "absent")):
        with pytest.raises(RequestError) as caught:
            kept.ask("cell.adopt", cell="sb_00000000000000aa", pid=mine, started=born)
        assert caught.value.code == code


@WHOEVER
def test_another_version_replaces_gateway_and_control_plane(kept: Kept) -> None:
    """A keeper of another version starts its own, and the cells with their sockets go on."""
    cell = kept.make()
    before = kept.status()
    kept.ask("retire")
    kept.ended()
    kept.version = "99.0"
    after = kept.start()
    assert after["version"] == "99.0"
    for name in ("gateway", "server"):
        assert after[name]["pid"] != before[name]["pid"]
    eventually(lambda: kept.heard(attach=cell)[1:], what="the new gateway to have the cell")
    assert kept.judged(cell) == "203.0.113.7 443"


@WHOEVER
def test_restart_replaces_what_it_names(lasting: Kept) -> None:
    """A restart of one process leaves the other alone."""
    before = lasting.status()
    lasting.ask("restart", name="server")
    after = eventually(
        lambda: (
            (found := lasting.status())["server"]["pid"] not in (None, before["server"]["pid"])
            and found["ready"]
            and found
        ),
        what="the restart",
    )
    assert after["gateway"]["pid"] == before["gateway"]["pid"]


@WHOEVER
def test_after_a_restart_ready_means_the_next_one(lasting: Kept) -> None:
    """Whoever asks for the control plane right after a restart waits for the new one, not for the one that is about to end."""
    before = lasting.status()["server"]["pid"]
    lasting.ask("restart", name="server")
    assert lasting.ask("ready")["pid"] != before


def test_down_leaves_nothing(kept: Kept) -> None:
    """After `down` there is no process and no socket; files stay."""
    kept.make()
    kept.down()
    eventually(lambda: not kept.person.processes(), what="the processes to end")
    assert [path.name for path in kept.person.paths.runtime.iterdir()] == ["lock"]


@WHOEVER
def test_a_sigterm_is_a_down(kept: Kept) -> None:
    """A keeper asked to end by a signal ends the others too."""
    os.kill(kept.status()["pid"], signal.SIGTERM)
    kept.ended()
    eventually(lambda: not kept.person.processes(), what="the processes to end")


@WHOEVER
def test_a_control_plane_that_does_not_start_is_told_with_its_last_words(kept: Kept) -> None:
    """Whoever waits for the control plane hears why it does not come, and it is tried again in ever longer intervals."""
    broken = kept.person.paths.local / "broken"
    broken.touch()
    os.kill(kept.status()["server"]["pid"], signal.SIGKILL)
    eventually(lambda: not kept.status()["ready"], what="it to be missed")
    with pytest.raises(RequestError, match="this server is broken"):
        kept.ask("ready")
    broken.unlink()
    kept.ask("restart", name="server")
    eventually(lambda: kept.status()["ready"], what="it to come back")


def test_the_gateway_has_no_rights(kept: Kept) -> None:
    """The gateway runs without capabilities and cannot get any; root's is a user of its own."""
    (note,) = eventually(
        lambda: [note for note in kept.heard() if "started" in note], what="the gateway to start"
    )
    assert int(note["CapEff"], 16) == int(note["CapPrm"], 16) == 0
    assert note["NoNewPrivs"] == "1"
    assert note["uid"] == (GATEWAY_ID if kept.person.uid == 0 else kept.person.uid)
    assert Path(f"/proc/{note['started']}/environ").stat().st_uid == 0
    if kept.person.uid == 0:
        assert int(note["CapBnd"], 16) == 0
        # The code of third parties was imported by the same user, who could only read.
        imported = note["imported"]
        assert int(imported["CapEff"], 16) == int(imported["CapPrm"], 16) == 1 << CAP_DAC_READ_SEARCH
        assert int(imported["CapBnd"], 16) == 0
        assert imported["Uid"].split() == [str(GATEWAY_ID)] * 4


def test_only_one_keeper(kept: Kept) -> None:
    """A second keeper of the same places is refused at once, while the first one answers."""
    os.seteuid(kept.person.uid)
    try:
        with pytest.raises(daemonize.AnotherError):
            daemonize.lock(kept.person.paths)
    finally:
        os.seteuid(os.getuid())


def test_strangers_and_garbage_do_not_matter(kept: Kept) -> None:
    """A client of another user is let go at once, and one that sends garbage too; the keeper serves on."""
    paths = kept.person.paths
    opened = (kept.person.home, paths.runtime.parent, paths.runtime)
    modes = [path.stat().st_mode for path in opened]
    for path in opened:
        path.chmod(0o711)
    paths.keeper_socket.chmod(0o666)
    try:
        os.seteuid(12345)
        try:
            link = Link.to(paths.keeper_socket, 60)
        finally:
            os.seteuid(os.getuid())
        with link, pytest.raises(LinkClosedError):
            link.request("status")
    finally:
        paths.keeper_socket.chmod(0o600)
        for path, mode in zip(opened, modes, strict=True):
            path.chmod(mode)
    for garbage in (b"\xff\xff\xff\xff", b"\0\0\0\2[]", b"\0\0\0\3{{{", b"\0\0\0\x05"):
        with kept.person.link() as link:
            link.sock.sendall(garbage)
            link.sock.shutdown(socket.SHUT_WR)
            assert link.sock.recv(100) == b""
    assert kept.status()["ready"]


@WHOEVER
def test_nothing_of_whoever_started_it_stays_open(kept: Kept) -> None:
    """A descriptor that the keeper was started with is closed in it, and in what it starts."""
    kept.down()
    read, write = os.pipe()
    kept.start(inherited=[write])
    os.close(write)
    with os.fdopen(read, "rb", buffering=0) as pipe:
        ready, _, _ = select.select([pipe], [], [], 60)
        assert ready
        assert pipe.read(1) == b""


def test_a_log_that_grows_is_cut(tmp_path: Path) -> None:
    """A log beyond its limit keeps its end next to it and starts again; writers append to the fresh one."""
    log = tmp_path / "gateway.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"old\n" * (2 << 20))
        daemonize.cap(log)
        assert log.stat().st_size == 0
        writer.write(b"new\n")
    assert log.read_bytes() == b"new\n"
    assert (tmp_path / "gateway.log.1").stat().st_size == 1 << 20
    daemonize.cap(log)
    assert log.read_bytes() == b"new\n"


@WHOEVER
def test_a_request_of_the_api_is_in_the_keepers_log(lasting: Kept) -> None:
    """What the keeper is asked for names the request that led to it, where it is an id."""
    name = f"sb_{os.urandom(8).hex()}"
    with lasting.person.link() as link:
        for request in ("0123abcd", "no id\nat all"):
            link.request("cell.drop", cell=name, request=request)
    logged = (lasting.person.home / "keeper.err").read_text()
    assert f" INFO request=0123abcd sandbox={name}: cell.drop\n" in logged
    assert logged.count(name) == 1
    assert "at all" not in logged
