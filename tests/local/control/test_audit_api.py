"""The audit log over HTTP: pages, filters, whose events a name means, and long polls that wake at once."""

from __future__ import annotations

import asyncio
import fcntl
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import pytest
from tests.local.control.lab import Lab, control_plane, run, until

from irons_local import times
from irons_local.control.api import audit as routes_audit
from irons_local.control.audit import log
from irons_local.control.audit.events import COLUMNS, NEWEST
from irons_local.gateway.record.folding import WINDOW, Folder
from irons_local.gateway.record.journal import Journal
from irons_local.gateway.record.refusal import Refusal
from irons_policy.causes import Cause

RUN = "1700000000000000-4242-0"


class Writer:
    """A gateway's audit log, written as a living gateway does, which tells the control plane."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._file = lab.write_log(RUN).open("ab")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self._conn = 0

    async def attempt(self, cell: str, host: str, verdict: str = "allowed") -> None:
        """Write one judged attempt."""
        self._conn += 1
        record = {"kind": "verdict", "conn": self._conn, "cell": cell, "host": host, "port": 443}
        self._lab.write_log(RUN, {**record, "verdict": verdict, "mode": "deny"})
        await self._lab.gateway.link.send({"op": "audit", "run": RUN})

    def close(self) -> None:
        """Let the gateway end."""
        self._file.close()


async def _read(lab: Lab, path: str = "/audit/egress", **params: Any) -> Any:
    answer = await lab.client.get(path, params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def _hosts(lab: Lab, path: str = "/audit/egress", **params: Any) -> list[str]:
    return [event["host"] for event in (await _read(lab, path, **params))["events"]]


def test_a_token_gives_only_what_came_after(tmp_path: Path) -> None:
    """An answer's token leads to what came after it; an empty log has no token."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            assert await _read(lab, "/sandboxes/box/audit/egress") == {"events": []}
            # The later v1 API has a list there: its clients fail, and do not show an empty log.
            assert isinstance((await _read(lab)).pop("data"), str)
            writer = Writer(lab)
            await writer.attempt(cell, "a.test")
            first = await _read(lab, "/sandboxes/box/audit/egress", wait=60)
            assert [event["host"] for event in first["events"]] == ["a.test"]
            assert first["events"][0]["sandbox_name"] == "box"
            await writer.attempt(cell, "b.test", "blocked")
            token = first["page_token"]
            second = await _read(lab, "/sandboxes/box/audit/egress", pageToken=token, wait=60)
            assert [event["host"] for event in second["events"]] == ["b.test"]
            third = await _read(lab, "/sandboxes/box/audit/egress", pageToken=second["page_token"])
            assert third == {"events": [], "page_token": second["page_token"]}
            writer.close()

    run(work())


def test_a_v0_client_sees_the_newest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks once for all gets the newest, oldest first, with how many are left out; tokens and pages lead on as ever."""
    monkeypatch.setattr(routes_audit, "NEWEST", 3)

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            writer = Writer(lab)
            for number in range(8):
                await writer.attempt(cell, f"h{number}.test", "blocked" if number % 2 else "allowed")
            for path in ("/audit/egress", "/sandboxes/box/audit/egress"):
                newest = await _read(lab, path)
                assert [event["host"] for event in newest["events"]] == ["h5.test", "h6.test", "h7.test"]
                assert newest["left_out"] == 5
                assert await _hosts(lab, path, pageToken=0) == ["h5.test", "h6.test", "h7.test"]
                blocked = await _read(lab, path, verdict="blocked")
                assert ([event["host"] for event in blocked["events"]], blocked["left_out"]) == (
                    ["h3.test", "h5.test", "h7.test"],
                    1,
                )
            first = newest["events"][0]["id"]
            behind = await _read(lab, pageToken=first - 4)
            assert [event["host"] for event in behind["events"]] == ["h2.test", "h3.test", "h4.test"]
            assert behind["page_token"] == first - 1
            assert "left_out" not in behind
            page = await _read(lab, page_size=2)
            assert [event["host"] for event in page["events"]] == ["h0.test", "h1.test"]
            assert "left_out" not in page
            assert await _hosts(lab, page_size=2, pageToken=page["page_token"]) == ["h2.test", "h3.test"]
            assert await _hosts(lab, limit=2) == ["h6.test", "h7.test"]
            writer.close()

    run(work())


def test_events_in_columns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fields that are named come as a list of values each: the same events, filters and tokens, mode `ask` as ever, and no wait for more."""
    # An answer that is held never comes.
    monkeypatch.setattr(log, "LONGEST_WAIT", 86_400.0)

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            writer = Writer(lab)
            for number in range(6):
                await writer.attempt(cell, f"h{number}.test", "blocked" if number % 2 else "allowed")
            asks = {
                "kind": "verdict",
                "conn": 99,
                "cell": cell,
                "host": "asks.test",
                "verdict": "blocked",
                "mode": "ask",
            }
            lab.write_log(RUN, asks)
            rows = (await _read(lab))["events"]
            names = [name for name in COLUMNS if name != "type"]
            path = "/sandboxes/box/audit/egress"
            answer = await _read(lab, path, columns=",".join(names), page_size=100, wait=86_400)
            assert answer.pop("events") == []
            told = answer["columns"]
            assert told.keys() == {*names, "ask"}
            found = [
                {name: value for name, value in zip(told, row, strict=True) if value is not None}
                for row in zip(*told.values(), strict=True)
            ]
            assert [{"type": "egress", **row} for row in found] == rows
            first = await _read(lab, columns="host,verdict", page_size=2, verdict="blocked")
            assert first["columns"] == {"host": ["h1.test", "h3.test"], "verdict": ["blocked"] * 2}
            last = await _read(
                lab, columns="host", page_size=9, pageToken=first["page_token"], verdict="blocked"
            )
            assert last["columns"] == {"host": ["h5.test", "asks.test"]}
            none = await _read(lab, columns="host,port", pageToken=last["page_token"])
            assert (none["events"], none["columns"]) == ([], {"host": [], "port": []})
            for wrong in (
                {"columns": "host,nothing"},
                {"columns": "events.id"},
                {"columns": "host", "changes": "1"},
            ):
                assert (await lab.client.get("/audit/egress", params=wrong)).status_code == 400
            writer.close()

    run(work())


def test_at_least_ten_thousand_at_once() -> None:
    """The contract's number for who asks once."""
    assert NEWEST >= 10_000


def test_who_asks_is_told_all_there_was(tmp_path: Path) -> None:
    """What was recorded before a question is in its answer, though the gateway has not reported it yet."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            record = {"kind": "verdict", "cell": cell, "verdict": "blocked", "mode": "deny"}
            for number in range(1, 20):
                lab.write_log(RUN, {**record, "conn": number, "host": f"h{number}.test"})
                assert (await _hosts(lab))[-1] == f"h{number}.test"
                assert len(await _hosts(lab, "/sandboxes/box/audit/egress")) == number

    run(work())


@pytest.mark.slow
def test_a_long_poll_wakes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each held poll is woken by the record itself, within 100 ms where the machine lets it; one without news answers in time."""
    monkeypatch.setattr(log, "_LOOK_ANYWAY", 3600.0)

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            writer = Writer(lab)
            loop = asyncio.get_running_loop()
            token, took = 0, list[float]()
            for number in range(20):
                held = asyncio.ensure_future(_read(lab, pageToken=token, wait=60))
                await asyncio.sleep(0.03)
                began = loop.time()
                await writer.attempt(cell, f"h{number}.test")
                answer = await held
                took.append(loop.time() - began)
                token = answer["page_token"]
                assert [event["host"] for event in answer["events"]] == [f"h{number}.test"]
            # A machine that is busy with something else, or stands still, makes most of them late.
            assert min(took) < 0.1
            began = loop.time()
            assert (await _read(lab, pageToken=token, wait=0.2))["events"] == []
            assert loop.time() - began > 0.15
            writer.close()

    run(work())


@pytest.mark.slow
def test_a_poll_is_told_of_what_changed(tmp_path: Path) -> None:
    """A held poll with a cursor is woken by the end of an event that was reported before; filters and sandboxes hold for it."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cells = {name: (await lab.create(name))["id"] for name in ("box", "other")}
            writer = Writer(lab)
            for number, name in enumerate(("box", "box", "other")):
                await writer.attempt(cells[name], f"h{number}.test")
            first = await _read(lab, changes=2**63 - 1)
            assert "changed" not in first
            asked = {"pageToken": first["page_token"], "changes": first["change_token"]}
            path = "/sandboxes/box/audit/egress"
            held = asyncio.ensure_future(_read(lab, path, **asked, wait=60))
            without = asyncio.ensure_future(_read(lab, path, pageToken=first["page_token"], wait=0.5))
            closed = {"kind": "close", "ended": "refused", "outcome": "unreached", "duration_ms": 7}
            lab.write_log(RUN, {**closed, "cell": cells["other"], "conn": 3})
            lab.write_log(RUN, {**closed, "cell": cells["box"], "conn": 2})
            answer = await held
            told = [(event["id"], event["outcome"], event["duration_ms"]) for event in answer["changed"]]
            assert (answer["events"], told) == ([], [(2, "unreached", 7)])
            assert "changed" not in await without
            assert [event["id"] for event in (await _read(lab, **asked))["changed"]] == [2, 3]
            again = {**asked, "changes": (await _read(lab, **asked))["change_token"]}
            assert "changed" not in await _read(lab, **again)
            assert "changed" not in await _read(lab, **asked, outcome="reached")
            # What comes after the token is reported as an event.
            assert "changed" not in await _read(lab, **{**asked, "pageToken": 1})
            writer.close()

    run(work())


@pytest.mark.slow
def test_changes_of_one_sandbox_keep_no_other_waiting(tmp_path: Path) -> None:
    """A held poll of one sandbox is answered with its change, however many changes of another sandbox come first."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cells = {name: (await lab.create(name))["id"] for name in ("box", "loud")}
            writer = Writer(lab)
            for number, name in enumerate(("box", "loud", "loud", "loud", "loud")):
                await writer.attempt(cells[name], f"h{number}.test")
            first = await _read(lab, changes=2**63 - 1, wait=0)
            asked = {"pageToken": first["page_token"], "changes": first["change_token"], "page_size": 2}
            closed = {"kind": "close", "outcome": "reached", "duration_ms": 7}
            for conn in (2, 3, 4, 5):
                lab.write_log(RUN, {**closed, "cell": cells["loud"], "conn": conn})
            lab.write_log(RUN, {**closed, "cell": cells["box"], "conn": 1})
            answer = await _read(lab, "/sandboxes/box/audit/egress", **asked, wait=60)
            assert [event["id"] for event in answer["changed"]] == [1]
            writer.close()

    run(work())


class Held:
    """The clock of a folder, which stands, and what it would call."""

    def __init__(self) -> None:
        self.now = 100.0
        self.sweep: Callable[[], object] | None = None

    def time(self) -> float:
        """The time."""
        return self.now

    def call_later(self, _: float, callback: Callable[[], object]) -> None:
        """Keep what is to be called."""
        self.sweep = callback


@pytest.mark.slow
def test_a_reader_counts_what_the_gateway_folds(tmp_path: Path) -> None:
    """Repeats that the gateway folds into an event after it was read reach who reads on: connections, and what is only counted."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            journal = Journal(
                lab.paths.gateway / "audit",
                lambda name, _: told.append(asyncio.ensure_future(link.send({"op": "audit", "run": name}))),
            )
            told: list[asyncio.Future[None]] = []
            link = lab.gateway.link
            clock = Held()
            folder = Folder(cast("Any", clock), journal)
            first = await _read(lab, changes=2**63 - 1)
            place = {"pageToken": first.get("page_token", 0), "changes": first["change_token"]}
            counts: dict[int, int] = {}

            async def read_until(total: int) -> None:
                while sum(counts.values()) < total:
                    page = await _read(lab, **place, wait=60)
                    counts.update((event["id"], event["count"]) for event in page["events"])
                    counts.update((event["id"], event["count"]) for event in page.get("changed", ()))
                    place["pageToken"] = page.get("page_token", place["pageToken"])
                    place["changes"] = page.get("change_token", place["changes"])

            refused = Refusal("evil.test", 80, "http", "deny", None, "no rule allows it", Cause.UNCOVERED)
            folder.refused(cell, refused, journal.open(cell, host="evil.test"))
            await read_until(1)
            for _ in range(11):
                folder.refused(cell, refused, journal.open(cell, host="evil.test"))
            await read_until(12)
            for _ in range(5):
                folder.refused(cell, refused._replace(protocol="udp", port=53))
            # The last of them is in the log when the second of the fold is over.
            assert clock.sweep is not None
            clock.now += WINDOW
            clock.sweep()
            await read_until(17)
            assert sorted(counts.values()) == [5, 12]
            read = await _read(lab)
            assert {event["id"]: event["count"] for event in read["events"]} == counts
            folder.flush()
            journal.close()
            await asyncio.gather(*told)

    run(work())


def test_a_filtered_poll_sleeps_through_the_rest(tmp_path: Path) -> None:
    """A poll with filters is woken by what fits them only."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            writer = Writer(lab)
            held = asyncio.ensure_future(_hosts(lab, verdict="blocked", wait=60))
            await writer.attempt(cell, "a.test", "allowed")
            await writer.attempt(cell, "b.test", "warn")
            await asyncio.sleep(0.1)
            assert not held.done()
            await writer.attempt(cell, "c.test", "blocked")
            assert await held == ["c.test"]
            assert await _hosts(lab, verdict="denied,warn") == ["b.test", "c.test"]
            assert await _hosts(lab, host="A.*") == ["a.test"]
            assert await _hosts(lab, limit=2) == ["b.test", "c.test"]
            writer.close()

    run(work())


def test_bad_filters_are_refused(tmp_path: Path) -> None:
    """Tokens, times, verdicts and limits that are not are 400."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            for params in (
                "pageToken=-1",
                "pageToken=x",
                "pageToken=1e3",
                "pageToken=99999999999999999999",
                "pageToken=1&pageToken=2",
                "since=yesterday",
                "since=2026-02-19",
                "until=2026-02-30T00:00:00Z",
                "until=2026-02-19T16:42:26",
                "verdict=maybe",
                "limit=0",
                "limit=1_0",
                "wait=-1",
                "wait=nan",
                "wait=inf",
                "host=",
                "colour=red",
            ):
                answer = await lab.client.get(f"/audit/egress?{params}")
                assert answer.status_code == 400, params
                assert answer.json()["error"]
            assert (await lab.client.get("/sandboxes/nobody/audit/egress")).status_code == 404

    run(work())


def test_times_may_have_any_offset(tmp_path: Path) -> None:
    """Since and until are RFC 3339 with any offset and any number of digits."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            writer = Writer(lab)
            await writer.attempt(cell, "a.test")
            await until_hosts(lab, ["a.test"])
            at = times.parse((await _read(lab))["events"][0]["timestamp"])
            east = datetime.fromtimestamp(at // 1_000_000, timezone(timedelta(hours=1))).isoformat()
            same = f"{east.removesuffix('+01:00')}.{at % 1_000_000:06d}"
            assert await _hosts(lab, since=f"{same}+01:00") == ["a.test"]
            assert await _hosts(lab, since=times.rfc3339(at + 1).lower()) == []
            assert await _hosts(lab, until=f"{same}999+01:00") == ["a.test"]
            assert await _hosts(lab, until=times.rfc3339(at - 1)) == []
            writer.close()

    run(work())


async def until_hosts(lab: Lab, hosts: list[str]) -> None:
    """Wait until the log has exactly these hosts."""

    async def there() -> bool:
        return await _hosts(lab) == hosts

    await until(there)


def test_events_outlive_their_sandbox(tmp_path: Path) -> None:
    """After a removal, the name and the id still lead to the events; a sandbox with the name starts with none."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            writer = Writer(lab)
            await writer.attempt(cell, "old.test")
            await until_hosts(lab, ["old.test"])
            await lab.client.post("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            await lab.client.delete("/sandboxes/box")
            assert await _hosts(lab, "/sandboxes/box/audit/egress") == ["old.test"]
            await lab.create("box")
            assert await _hosts(lab, "/sandboxes/box/audit/egress") == []
            assert await _hosts(lab, f"/sandboxes/{cell}/audit/egress") == ["old.test"]
            assert await _hosts(lab) == ["old.test"]
            writer.close()

    run(work())


def test_nothing_is_lost_or_doubled_by_a_kill(tmp_path: Path) -> None:
    """Records written while no control plane runs, and before and after, are all there once."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            writer = Writer(lab)
            await writer.attempt(cell, "a.test")
            await until_hosts(lab, ["a.test"])
        record = {"kind": "verdict", "cell": cell, "port": 443, "verdict": "allowed"}
        lab.write_log(RUN, {**record, "conn": 2, "host": "b.test"}, {**record, "conn": 3, "host": "c.test"})
        async with control_plane(tmp_path, lab.engine) as lab:
            await until_hosts(lab, ["a.test", "b.test", "c.test"])
            writer.close()

            async def closed() -> bool:
                events = (await _read(lab))["events"]
                return {event.get("ended") for event in events} == {"interrupted"}

            await until(closed)
            assert await _hosts(lab) == ["a.test", "b.test", "c.test"]

            async def removed() -> bool:
                return list((lab.paths.gateway / "audit").iterdir()) == []

            await until(removed)

    run(work())


def test_a_worker_that_lies_about_a_cell_of_another_is_not_believed(tmp_path: Path) -> None:
    """The keeper says who serves a sandbox; what another worker's log says of it is in no answer, and its own events are."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            lie = {"kind": "event", "conn": 1, "cell": cell, "host": "lie.test", "verdict": "allowed"}
            lab.write_log("1700000000000000-4243-7", lie)
            writer = Writer(lab)
            await writer.attempt(cell, "true.test")
            await until(lambda: _sees(lab, "true.test"))
            assert await _hosts(lab) == ["true.test"]
            writer.close()

    run(work())


async def _sees(lab: Lab, host: str) -> bool:
    return host in await _hosts(lab)


@pytest.mark.slow
def test_a_cell_that_was_moved_is_believed_of_its_new_worker(tmp_path: Path) -> None:
    """The keeper tells of it before the worker begins; that worker's events are taken in, with no one asked."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            await lab.keeper.send({"op": "moved", "cell": cell, "served": [0, 7]})
            event = {"kind": "event", "conn": 1, "cell": cell, "host": "moved.test", "verdict": "allowed"}
            lab.write_log("1700000000000000-4243-7", event)
            await until(lambda: _sees(lab, "moved.test"))
            assert "cell.served" not in [asked["op"] for asked in lab.kept]

    run(work())


def test_what_was_tried_by_host(tmp_path: Path) -> None:
    """The summary of a sandbox is there at once, by name and by id, with filters; an unknown sandbox is missing."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            record = {"kind": "verdict", "cell": cell, "port": 443, "mode": "deny"}
            lab.write_log(
                RUN,
                {**record, "conn": 1, "host": "a.test", "verdict": "allowed"},
                {**record, "conn": 2, "host": "b.test", "verdict": "blocked"},
            )
            for name in ("box", cell):
                told = await _read(lab, f"/sandboxes/{name}/audit/hosts")
                assert [(row["host"], row["count"]) for row in told["hosts"]] == [
                    ("a.test", 1),
                    ("b.test", 1),
                ]
            told = await _read(lab, "/sandboxes/box/audit/hosts", verdict="blocked", host="*.test", limit=5)
            assert [row["host"] for row in told["hosts"]] == ["b.test"]
            assert (await lab.client.get("/sandboxes/none/audit/hosts")).status_code == 404
            totals = await _read(lab, "/sandboxes/box/audit/totals")
            assert totals == {"connections": 2, "refused": 1}
            lab.write_log(RUN, {**record, "conn": 3, "host": "b.test", "verdict": "blocked"})
            totals = await _read(lab, f"/sandboxes/{cell}/audit/totals")
            assert totals == {"connections": 3, "refused": 2}
            assert (await lab.client.get("/sandboxes/none/audit/totals")).status_code == 404

    run(work())


def test_events_are_filtered_by_outcome(tmp_path: Path) -> None:
    """Only events that ended like that are given; a word that is not an outcome is refused."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            record = {"kind": "event", "cell": cell, "port": 443, "verdict": "allowed"}
            lab.write_log(
                RUN,
                *(
                    {**record, "conn": number, "host": f"{outcome}.test", "outcome": outcome}
                    for number, outcome in enumerate(("reached", "unresolved", "unreached"), 1)
                ),
            )
            assert await _hosts(lab, outcome="unresolved,unreached") == ["unresolved.test", "unreached.test"]
            answer = await lab.client.get("/audit/egress", params={"outcome": "lost"})
            assert (answer.status_code, "outcome" in answer.json()["error"]) == (400, True)

    run(work())


def test_a_page_says_what_was_rotated_out(tmp_path: Path) -> None:
    """Where events made room, each page says of which sandbox, how many, and before when; else it says nothing of it."""

    async def work() -> None:
        async with control_plane(tmp_path, keep_events=100) as lab:
            cell = (await lab.create("box"))["id"]
            record = {"kind": "event", "cell": cell, "port": 443, "verdict": "allowed"}
            lab.write_log(RUN, *({**record, "conn": conn, "host": "a.test"} for conn in range(1, 121)))

            async def rotated() -> bool:
                return "rotated" in await _read(lab)

            await until(rotated)
            (said,) = (await _read(lab, "/sandboxes/box/audit/egress"))["rotated"]
            assert (said["sandbox_name"], said["sandbox_id"], said["events"]) == ("box", cell, 20)
            await lab.create("other")
            assert "rotated" not in await _read(lab, "/sandboxes/other/audit/egress")

    run(work())


def test_times_of_a_column() -> None:
    """Times that are written together are what each of them is written alone, over minutes and before 1970."""
    for first in (0, -1, -59_999_999, -60_000_001):
        assert times.rfc3339_all([first, first + 1]) == [times.rfc3339(first), times.rfc3339(first + 1)]
    stored = [0, 59_999_999, 60_000_000, 60_000_001, 1_700_000_000_123_456, -1, 1_700_000_060_000_000]
    assert times.rfc3339_all(stored) == [times.rfc3339(at) for at in stored]
