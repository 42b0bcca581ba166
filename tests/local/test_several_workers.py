"""The gateway's workers: each has its own cells, and what happens to one of them happens to its own cells only."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.people import CELL_NEEDS, WHOEVER, Kept, Person, eventually, keeping, slay
from tests.machine import Machine

from irons_local.linux.namespaces import identity


@pytest.fixture
def kept(person: Person, machine: Machine) -> Iterator[Kept]:
    """A running keeper with stand-ins, and three workers."""
    with keeping(person, machine=machine, workers=3) as keeper:
        yield keeper


def pids(kept: Kept) -> dict[int, int]:
    """The workers' processes by number."""
    return {each["worker"]: each["pid"] for each in kept.status()["gateways"]}


def sockets_of(pid: int) -> set[str]:
    """The sockets that a process holds."""
    held = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]  # noqa: PTH115, PTH208
    return {each for each in held if each.startswith("socket:")}


def kill(kept: Kept, cell: str) -> int:
    """Kill the worker of a cell; gives the process it was."""
    pid = int(kept.worker_of(cell)["pid"])
    os.kill(pid, signal.SIGKILL)
    return pid


@WHOEVER
def test_cells_are_spread_and_served(kept: Kept) -> None:
    """Each worker gets as many cells as the others, each cell is named before it is made, and all are served."""
    assert kept.ask("cell.place", cell="sb_0000000000000001")["worker"] == 0
    cells = [kept.make() for _ in range(6)]
    assert [kept.worker_of(cell)["worker"] for cell in cells] == [0, 1, 2, 0, 1, 2]
    assert [kept.judged(cell) for cell in cells] == ["203.0.113.7 443"] * 6
    assert all(kept.heard(attach=cell, worker=number % 3) for number, cell in enumerate(cells))
    kept.ask("cell.drop", cell=cells[1])
    assert kept.ask("cell.place", cell="sb_00000000000000aa")["worker"] == 1
    kept.ask("cell.drop", cell="sb_00000000000000aa")
    assert kept.status()["gateways"][1]["cells"] == [cells[4]]


def test_a_worker_holds_nothing_of_another_and_nobody_looks_into_it(kept: Kept) -> None:
    """Workers share no socket, lead sessions of their own, and are not dumpable; the warm process holds its link alone."""
    cells = [kept.make() for _ in range(3)]
    held = {number: sockets_of(pid) for number, pid in pids(kept).items()}
    # Its link, its rendezvous, the stand-in's wake-up pair, and the seven of its cell, twice.
    assert all(len(each) >= 9 for each in held.values())
    assert not held[0] & held[1]
    assert not held[0] & held[2]
    assert not held[1] & held[2]
    # A worker may serve before the process that it was forked from has let go of its sockets.
    nursery = kept.status()["nursery"]["pid"]
    eventually(lambda: len(sockets_of(nursery)) == 1, what="the warm process to hold its link alone")
    for pid in (*pids(kept).values(), kept.status()["nursery"]["pid"]):
        assert os.getsid(pid) == pid
        # What belongs to root there is a process whose memory its own user may not read.
        assert Path(f"/proc/{pid}/environ").stat().st_uid == 0
        status = Path(f"/proc/{pid}/status").read_text()
        assert "CapEff:\t0000000000000000" in status
        assert "CapPrm:\t0000000000000000" in status
    assert [kept.judged(cell) for cell in cells] == ["203.0.113.7 443"] * 3


@WHOEVER
def test_workers_of_one_warm_process_draw_different_numbers(kept: Kept) -> None:
    """What `random` and OpenSSL give is another in each worker."""
    eventually(lambda: len(kept.heard(workers=3)) >= 3, what="three workers")
    notes = kept.heard(workers=3)
    for index in range(2):
        assert len({note["drawn"][index] for note in notes}) == len(notes)


@WHOEVER
def test_a_killed_worker_touches_its_own_cells_only(kept: Kept) -> None:
    """Its cells are served by its next process, and the others' processes stay."""
    first, second = kept.make(), kept.make()
    before = pids(kept)
    kill(kept, first)
    assert kept.judged(second) == "203.0.113.7 443"
    assert kept.judged(first) == "203.0.113.7 443"
    after = pids(kept)
    assert after[0] != before[0]
    assert (after[1], after[2]) == (before[1], before[2])
    assert kept.worker_of(first)["worker"] == 0


@WHOEVER
def test_the_warm_process_may_die(kept: Kept) -> None:
    """No worker ends with it; there is another one soon, from which the next workers come."""
    first, second = kept.make(), kept.make()
    before, warm = pids(kept), kept.status()["nursery"]["pid"]
    os.kill(warm, signal.SIGKILL)
    assert kept.judged(first) == "203.0.113.7 443"
    eventually(lambda: kept.status()["nursery"]["pid"] not in (None, warm), what="another warm process")
    assert pids(kept) == before
    killed = kill(kept, first)
    assert kept.judged(first) == "203.0.113.7 443"
    assert kept.replaced(first, killed)["worker"] == 0
    assert kept.judged(second) == "203.0.113.7 443"


@WHOEVER
def test_a_warm_process_that_hangs_is_replaced_when_it_is_needed(kept: Kept) -> None:
    """A worker that dies while it hangs comes from the next one."""
    cell = kept.make()
    warm = kept.status()["nursery"]["pid"]
    os.kill(warm, signal.SIGSTOP)
    killed = kill(kept, cell)
    kept.replaced(cell, killed)
    assert kept.status()["nursery"]["pid"] != warm
    # What arrived before that was refused, and is for a moment longer.
    eventually(lambda: kept.judged(cell) == "203.0.113.7 443", what="it to be served again")


@WHOEVER
def test_a_cell_that_kills_its_worker_again_and_again_costs_others_two_restarts(kept: Kept) -> None:
    """After the second time it is alone; whoever was served next to it has a worker that stays."""
    cells = [kept.make() for _ in range(4)]
    culprit, beside = cells[0], cells[3]
    assert kept.worker_of(culprit)["worker"] == kept.worker_of(beside)["worker"] == 0
    others = {number: pid for number, pid in pids(kept).items() if number}
    for _ in range(2):
        kept.replaced(culprit, kill(kept, culprit))
        assert kept.judged(beside) == "203.0.113.7 443"
    assert kept.worker_of(culprit)["cells"] == [culprit]
    assert kept.worker_of(culprit)["worker"] >= 3
    assert kept.worker_of(beside)["cells"] == [beside]
    stays = kept.worker_of(beside)["pid"]
    for _ in range(3):
        kept.replaced(culprit, kill(kept, culprit))
    assert kept.worker_of(beside)["pid"] == stays
    assert {number: pids(kept)[number] for number in others} == others
    assert [kept.judged(cell) for cell in cells[1:]] == ["203.0.113.7 443"] * 3
    eventually(lambda: kept.judged(culprit) == "203.0.113.7 443", what="it to be served too")
    # Gone, their workers go too.
    for cell in (culprit, beside):
        kept.ask("cell.drop", cell=cell)
    assert sorted(pids(kept)) == [0, 1, 2]
    eventually(lambda: not list(kept.person.paths.local.glob("gateway-3.*")), what="nothing to be left")


def test_the_next_keeper_finds_every_worker_with_its_cells(kept: Kept) -> None:
    """Workers outlive their keeper; which worker serves which cell stays as it was, also for a cell that is alone."""
    cells = [kept.make() for _ in range(4)]
    for _ in range(2):
        kept.replaced(cells[0], kill(kept, cells[0]))
    eventually(lambda: all(pids(kept).values()), what="all workers")
    before, served = pids(kept), {cell: kept.worker_of(cell)["worker"] for cell in cells}
    kept.kill()
    kept.start()
    assert pids(kept) == before, (kept.person.home / "keeper.err").read_text()
    assert {cell: kept.worker_of(cell)["worker"] for cell in cells} == served
    assert [kept.judged(cell) for cell in cells] == ["203.0.113.7 443"] * 4
    assert kept.ask("cell.place", cell=cells[0])["served"] == [0, served[cells[0]]]
    kept.replaced(cells[1], kill(kept, cells[1]))
    assert kept.judged(cells[1]) == "203.0.113.7 443"


@WHOEVER
@pytest.mark.parametrize("lost", ["removed", "garbled"])
def test_a_keeper_that_finds_no_note_learns_from_the_workers_whom_they_serve(kept: Kept, lost: str) -> None:
    """Or a change of the rules would go to a worker that does not serve the cell, and be reported as done."""
    cells = [kept.make() for _ in range(6)]
    for cell in (cells[0], cells[3]):
        kept.ask("cell.drop", cell=cell)
    left = [cell for cell in cells if cell not in (cells[0], cells[3])]
    before, served = pids(kept), {cell: kept.worker_of(cell)["worker"] for cell in left}
    kept.kill()
    if lost == "removed":
        kept.person.paths.workers.unlink()
    else:
        kept.person.paths.workers.write_text("{")
    kept.start()
    assert pids(kept) == before
    assert {cell: kept.worker_of(cell)["worker"] for cell in left} == served
    noted = json.loads(kept.person.paths.workers.read_text())
    assert {cell: had[-1] for cell, had in noted.items()} == served
    assert [kept.judged(cell) for cell in left] == ["203.0.113.7 443"] * 4


@WHOEVER
def test_a_worker_that_claims_a_cell_of_another_is_ended(kept: Kept) -> None:
    """Before a new keeper, a worker that was taken over gets no cell but its own; the other's is served as before."""
    first, second = kept.make(), kept.make()
    before = pids(kept)
    (kept.person.paths.gateway / "lies").write_text(f"0 {second}")
    kept.kill()
    after = kept.start()
    (kept.person.paths.gateway / "lies").unlink()
    assert after["gateways"][0]["pid"] != before[0]
    assert kept.worker_of(first)["worker"] == 0
    assert kept.worker_of(second)["worker"] == 1
    assert kept.judged(first) == "203.0.113.7 443"
    assert kept.judged(second) == "203.0.113.7 443"


def test_a_gateway_of_a_time_when_there_was_one_gives_its_cells_to_the_workers(kept: Kept) -> None:
    """An older irons has one gateway, `gateway.sock` and `gateway.process`: its cells live on, and it is ended."""
    cells = [kept.make() for _ in range(2)]
    kept.ask("cell.drop", cell=cells[1])
    names = kept.python(cells[0], "import os; print(os.stat('/proc/self/ns/net').st_ino)")
    paths = kept.person.paths
    old = kept.status()["gateways"][0]["pid"]
    others = [pid for pid in pids(kept).values() if pid != old]
    kept.kill()
    slay(*others)
    (paths.runtime / "gateway-0.sock").rename(paths.runtime / "gateway.sock")
    for path in (*paths.local.glob("gateway*.process"), paths.workers):
        path.unlink()
    (paths.local / "gateway.process").write_text(json.dumps({**identity(old), "version": kept.version}))
    kept.start()
    assert old not in pids(kept).values()
    eventually(lambda: not os.path.exists(f"/proc/{old}/exe"), what="the older one to end")  # noqa: PTH110
    assert kept.judged(cells[0]) == "203.0.113.7 443"
    assert kept.python(cells[0], "import os; print(os.stat('/proc/self/ns/net').st_ino)") == names
    assert not (paths.runtime / "gateway.sock").exists()


@WHOEVER
def test_workers_that_do_not_start_put_no_cell_apart(kept: Kept) -> None:
    """Where no worker comes up, for want of a disk for example, that is not a cell's fault."""
    cell = kept.make()
    broken = kept.person.paths.gateway / "broken"
    broken.touch()
    kill(kept, cell)
    eventually(lambda: kept.status()["gateways"][0]["failures"] > 3, what="some tries")
    assert sorted(pids(kept)) == [0, 1, 2]
    broken.unlink()
    eventually(lambda: kept.judged(cell) == "203.0.113.7 443", what="it to be served again")


OWN_MOST = 10 << 20
REQUESTS = """
import contextlib, socket
answered = 0
while answered < 1000:
    # One that says nothing for a second, as where the machine stands still, is ended without an answer.
    with contextlib.suppress(ConnectionError), socket.create_connection(("203.0.113.7", 80), timeout=60) as sock:
        sock.sendall(b"GET / HTTP/1.1\\r\\nHost: 203.0.113.7\\r\\n\\r\\n")
        answered += sock.recv(12) == b"HTTP/1.1 403"
print(answered)
"""


@WHOEVER
def test_a_further_worker_costs_little(
    person: Person, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the kernel would get back if a real worker ended is at most 10 MB, also after it has answered 1,000 connections."""
    for name in [name for name in os.environ if name.startswith("COVERAGE")]:
        # What measures coverage takes memory too.
        monkeypatch.delenv(name)
    kept = Kept(person, machine=machine, workers=2, gateway="irons_local.gateway")
    machine.require(*CELL_NEEDS)
    try:
        kept.start()
        cell = "sb_00000000000000cc"
        kept.ask("cell.make", cell=cell)
        assert kept.python(cell, REQUESTS) == "1000"
        own = {number: own_memory(pid) for number, pid in pids(kept).items()}
        assert max(own.values()) <= OWN_MOST, own
    finally:
        kept.down()


def own_memory(pid: int) -> int:
    """Bytes that are this process's alone."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (found,) = [line for line in lines if line.startswith("Private_Dirty:")]
    return int(found.split()[1]) * 1024
