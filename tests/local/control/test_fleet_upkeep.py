"""What the server and its members do where something fails: a disk, a cell, a member that means harm."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Callable, Collection, Iterator
from ipaddress import ip_address
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.local.control.fleet_site import CELL, OTHER, RUN, Asked, lines, linked, nothing, refusal, site
from tests.local.control.lab import ForwardLoop, run, until

from irons_local.control.audit import events
from irons_local.control.audit.events import Query
from irons_local.control.audit.ingest import GatheredLogs, Ingest
from irons_local.control.audit.log import Audit
from irons_local.control.audit.retention import Retention
from irons_local.control.fleet import copies as module
from irons_local.control.fleet.copies import LogCopies
from irons_local.control.store import members
from irons_local.fleet.link import SERVER, MemberLink, member_context
from irons_local.fleet.messages import Beat, Runs
from irons_local.ipc.framing import LinkError, RequestError
from irons_local.ipc.messages import PutPolicy
from irons_local.member.dialling import Dialler
from irons_local.member.identity import Identity, read_identity, write_identity
from irons_local.member.join import join
from irons_local.member.policies import PolicyBook
from irons_policy.hostnet import HostNetwork


def test_what_fails_at_a_member_is_tried_again_and_stopsnothing(tmp_path: Path) -> None:
    """Settings that it cannot keep, and a cell that it cannot drop, keep neither policies nor other cells from it, and the link lasts."""
    loop = ForwardLoop()

    async def story() -> None:
        async with site(tmp_path / "site") as here:
            asked = Asked()
            asked.failing.update({"settings": 1, f"cell.drop {CELL}": 1})
            async with linked(await here.joined("n2"), asked.hear, [CELL, OTHER]) as link:
                await asked.heard(f"worker {OTHER}")
                assert f"worker {CELL}" not in asked.all
                assert here.pushed == [[]]
                loop.skip(4)
                await asked.heard(f"worker {CELL}")
                await asked.heard("settings", 2)
                assert asked.all.count(f"cell.drop {OTHER}") == 1
                assert not link.closed
                assert await here.state("n2") == "connected"

    run(story(), loop)


def test_a_cell_that_was_just_placed_is_not_dropped(tmp_path: Path) -> None:
    """What a member had of a sandbox before goes first, or stays where a start has put the sandbox there meanwhile."""
    last = "sb_ffffffffffffffff"

    async def story() -> None:
        async with site(tmp_path / "site") as here:
            asked, let = Asked(), asyncio.Event()
            asked.waiting[f"cell.drop {CELL}"] = let
            async with linked(await here.joined("n2"), asked.hear, [CELL, OTHER, last]):
                await asked.heard(f"cell.drop {CELL}")
                cells = here.fleet.members.cells_of("n2")
                later = asyncio.ensure_future(cells.make_with_veth(CELL))
                await cells.make_with_veth(OTHER)
                let.set()
                await later
                await asked.heard(f"worker {last}")
            assert f"cell.drop {OTHER}" not in asked.all
            of_first = [each.split()[0] for each in asked.all if each.endswith(CELL)]
            assert of_first == ["cell.drop", "worker", "cell.make"]

    run(story())


def test_a_member_has_few_requests_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the disk is slow more are refused, whatever they are: none of them is kept in memory until then."""
    slow, looks = threading.Event(), LogCopies.compare

    def look(copies: LogCopies, runs: Collection[str]) -> Any:
        slow.wait()
        return looks(copies, runs)

    monkeypatch.setattr(LogCopies, "compare", look)

    async def story() -> None:
        async with site(tmp_path / "site") as here:
            ends, _ = await Dialler(await here.joined("n2")).greet({}, "")
            link = MemberLink(*ends, nothing)
            running = asyncio.ensure_future(link.run())
            try:
                runs = [asyncio.ensure_future(link.request(Runs([]))) for _ in range(8)]
                with pytest.raises(RequestError, match="too much is asked at once"):
                    await asyncio.ensure_future(link.request(Beat(1)))
                slow.set()
                done = await asyncio.gather(*runs, return_exceptions=True)
                assert 0 < sum(isinstance(each, dict) for each in done) < len(runs)
            finally:
                slow.set()
                link.close()
                await asyncio.gather(running, return_exceptions=True)

    run(story())


def test_a_policy_on_a_full_disk_is_the_last_one_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before is active no more, neither while the process lives nor when the next one reads what is kept."""
    book = PolicyBook(tmp_path)
    book.put(CELL, book.made("epoch", 11, {}, {"mode": "deny", "rules": [{"pattern": "a.test"}]}, []))

    def full(*_given: Any, **_more: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("irons_local.member.policies.write_whole", full)
    later = book.made("epoch", 12, {}, {"mode": "deny", "rules": []}, [])
    with pytest.raises(OSError, match="No space"):
        book.put(CELL, later)
    assert book.get(CELL) == later
    assert PolicyBook(tmp_path).get(CELL) is None


def test_no_power_cut_undoes_what_members_go_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk has the database's log before a token is answered, a member counts as removed, a policy or a cell goes out, or a log that was taken in is removed."""
    synced: list[str] = []
    sync = os.fdatasync
    copy = tmp_path / f"site/fleet/logs/n2/{RUN}.jsonl"

    def noted(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name + ("" if copy.exists() else " alone"))
        sync(fd)

    monkeypatch.setattr(os, "fdatasync", noted)

    def durable(copied: bool = False) -> int:
        """How often the database's log was written out since this was asked last, with the copy of a member's log next to it or without."""
        found = synced.count("irons.db-wal" if copied else "irons.db-wal alone")
        synced.clear()
        return found

    async def story() -> None:
        async with site(tmp_path / "site") as here:
            token = await here.add("n2")
            assert durable()
            await join(token, tmp_path / "n2")
            assert durable() == 2
            asked = Asked()
            async with linked(read_identity(tmp_path / "n2"), asked.hear):
                await here.is_("n2", "connected")
                synced.clear()
                await here.fleet.members.cells_of("n2").make_with_veth(CELL)
                assert durable()
                ask = here.fleet.members.elsewhere(CELL)
                assert ask is not None
                await ask(PutPolicy(CELL, {"mode": "deny", "rules": []}))
                assert durable()
            await here.fleet.remove("n2")
            assert durable()
            audit = Audit(
                here.store, GatheredLogs(Ingest(here.home / "own"), here.home / "fleet/logs"), Retention()
            )
            copy.parent.mkdir(parents=True)
            for path in (copy, copy.with_suffix(".over")):
                path.touch()
            await audit.catch_up()
            assert not copy.exists()
            assert durable(copied=True)

    run(story())


def test_a_run_that_was_begun_comes_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With as many copies as there may be no run is begun, and those that were go on to their end, after which there is room again."""
    monkeypatch.setattr(module, "MOST", 64 * 1024)
    copies = LogCopies(tmp_path)
    long, other = RUN, RUN.replace("-0", "-1")
    size = copies.append(long, 0, b"x" * 80 * 1024, counts=False)
    with pytest.raises(RequestError, match="take in what it has first"):
        copies.append(other, 0, b"line\n", counts=False)
    assert copies.append(long, 0, b"counts", counts=True) == 6
    size = copies.append(long, size, b"end\n", counts=False)
    copies.end(long, size)
    for path in tmp_path.glob(f"{long}.*"):
        path.unlink()
    assert copies.append(other, 0, b"line\n", counts=False) == 5


def test_what_was_taken_in_of_a_long_run_takes_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs that go on for as long as one of their connections lives do not use up what a member may have here."""
    monkeypatch.setattr("irons_local.control.audit.ingest._SWEPT_EVERY", 1)

    async def story() -> None:
        async with site(tmp_path / "site") as here:
            await here.store.write(lambda connection: members.place(connection, CELL, "n2"))
            logs = GatheredLogs(Ingest(here.home / "own"), here.home / "fleet/logs")
            # The records are of 2023.
            audit = Audit(here.store, logs, Retention(days=100_000))
            copies = LogCopies(here.home / "fleet/logs/n2")
            path = here.home / f"fleet/logs/n2/{RUN}.jsonl"
            data = lines(*(refusal(conn, f"h{conn}.test") for conn in range(1, 2001)))
            half = data.index(b"\n", len(data) // 2) + 1
            assert copies.append(RUN, 0, data[:half], counts=False) == half
            before = path.stat().st_blocks
            await audit.catch_up()
            if path.stat().st_blocks >= before:
                pytest.skip("this file system keeps no holes")
            assert path.stat().st_blocks * 512 <= 8192
            assert copies.compare([RUN]) == ({RUN: half}, [])
            assert copies.append(RUN, half, data[half:], counts=False) == len(data)
            await audit.catch_up()
            found = here.store.write_now(lambda connection: events.page(connection, Query(size=5000))).events
            assert len({event["host"] for event in found}) == 2000

    run(story())


def test_members_know_all_addresses_of_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it listens on every address, no rule opens its ports at any that it has: a member cannot find those out by itself."""
    own = frozenset(map(ip_address, ("127.0.0.1", "10.9.9.9", "100.64.7.7", "fd00::7", "fe80::1")))
    monkeypatch.setattr("irons_local.control.fleet.members.read_host_network", lambda: HostNetwork(own=own))

    async def story() -> None:
        async with site(tmp_path / "site") as here:
            here.fleet.members.settings([("0.0.0.0", 7443), ("192.0.2.1", 80)], None)
            asked = Asked()
            async with linked(await here.joined("n2"), asked.hear):
                await asked.heard("settings")
            there = {tuple(each) for each in asked.settings["listeners"]}
            assert {("10.9.9.9", 7443), ("100.64.7.7", 7443), ("fd00::7", 7443), ("192.0.2.1", 80)} < there
            assert ("10.9.9.9", 80) not in there

    run(story())


def interrupted(real: Callable[..., Any], steps: Iterator[int], at: int) -> Callable[..., Any]:
    """A step that fails where it is the one of that number."""

    def step(*given: Any) -> Any:
        if next(steps) == at:
            raise OSError(errno.EIO, "Input/output error")
        return real(*given)

    return step


def test_joining_again_leaves_one_identity_or_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it fails the machine is still the member that it was, and nothing of the attempt is left."""

    def write(name: str) -> None:
        write_identity(tmp_path, name, "192.0.2.1:7443", ca="ca", certificate="certificate", key="key")

    write("first")
    there = sorted(path.name for path in tmp_path.iterdir())
    at = 0
    while True:
        at += 1
        steps = count(1)
        with monkeypatch.context() as patched:
            for kind in ("rename", "replace", "symlink_to"):
                patched.setattr(Path, kind, interrupted(getattr(Path, kind), steps, at))
            try:
                write("second")
                break
            except OSError:
                assert read_identity(tmp_path).name == "first"
                assert read_identity(tmp_path).key.read_text() == "key"
                assert sorted(path.name for path in tmp_path.iterdir()) == there
    assert at > 2
    assert read_identity(tmp_path).name == "second"
    assert len(list(tmp_path.iterdir())) == len(there)


async def met(who: Identity) -> bool:
    """Whether the server takes a link of a member now."""
    try:
        ends, _ = await Dialler(who).greet({}, "")
    except (LinkError, RequestError):
        return False
    ends[1].transport.abort()
    return True


async def refused(who: Identity) -> bool:
    """Whether it takes none."""
    return not await met(who)


def test_strangers_that_say_nothing_are_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Connections in their handshake are bounded, and what is beyond is closed; when they go there is room again."""
    monkeypatch.setattr("irons_local.control.fleet.door._HANDSHAKES_EACH", 2)

    async def story() -> None:
        async with site(tmp_path / "site") as here:
            who = await here.joined("n2")
            silent = [await asyncio.open_connection(who.host, who.port) for _ in range(2)]
            await until(lambda: refused(who))
            for _, writer in silent:
                writer.transport.abort()
            await until(lambda: met(who))

    run(story())


def test_a_member_that_says_nothing_has_few_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those that have not said what they are for are bounded for each member, and take nothing from another one."""
    monkeypatch.setattr("irons_local.control.fleet.listener._BEGUN", 2)

    async def story() -> None:
        async with site(tmp_path / "site") as here:
            who, other = await here.joined("n2"), await here.joined("n3")
            context = member_context(who.ca, who.certificate, who.key)
            silent = [
                await asyncio.open_connection(who.host, who.port, ssl=context, server_hostname=SERVER)
                for _ in range(2)
            ]
            await until(lambda: refused(who))
            assert await met(other)
            for _, writer in silent:
                writer.transport.abort()
            await until(lambda: met(who))

    run(story())
