"""What a person sees of a question: what the audit log has of its host, and what its name alone says."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from tests.local.control.asking import tell, told
from tests.local.control.gateway_logs import CELL, Logs, open_record, verdict_record
from tests.local.control.lab import Lab, control_plane, run, until
from tests.local.control.test_audit_api import Writer

from irons.presets.known_sets import OURS
from irons_local import times
from irons_local.control.egress.question_details import QuestionAbout, QuestionBook, QuestionDetails
from irons_local.control.egress.relays import RELAYS, looks_random, relay_of
from irons_local.control.store.database import Store
from irons_policy.hostnames import canonical_host

KINDS = {"paste", "tunnel", "webhook", "doh"}


async def logged(lab: Lab, cell: str, *attempts: tuple[str, str]) -> None:
    """Write attempts, each a host and a verdict, and wait until all are in the log."""
    with contextlib.closing(Writer(lab)) as writer:
        for host, verdict in attempts:
            await writer.attempt(cell, host, verdict)

        async def there() -> bool:
            found = (await lab.client.get("/sandboxes/box/audit/egress")).json()["events"]
            return len(found) == len(attempts)

        await until(there)


async def detailed(lab: Lab, cell: str, *hosts: str) -> dict[str, dict[str, Any]]:
    """The questions about these hosts, asked now."""
    now = times.now()
    found = await tell(lab, cell, *(told(host, since=now) for host in hosts))
    keys = ("new", "refused", "below", "below_count", "marks")
    return {each["host"]: {key: each[key] for key in keys} for each in found}


def test_what_the_log_has_of_a_host(tmp_path: Path) -> None:
    """Whether it is new, how often just that was refused, and the names below the same domain, the last ones and their number."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = str((await lab.create("box", mode="ask"))["id"])
            await logged(
                lab,
                cell,
                ("known.example.com", "blocked"),
                ("known.example.com", "blocked"),
                ("known.example.com", "allowed"),
                *((f"h{number}.example.com", "allowed") for number in range(4)),
                ("example.org", "blocked"),
            )
            found = await detailed(
                lab, cell, "known.example.com", "new.example.com", "new.other.com", "203.0.113.9"
            )
            assert found["known.example.com"] == {
                "new": False,
                "refused": 2,
                "below": ["h3.example.com", "h2.example.com", "h1.example.com"],
                "below_count": 4,
                "marks": [],
            }
            new = found["new.example.com"]
            assert (new["new"], new["refused"], new["below_count"]) == (True, 0, 5)
            nothing = {"new": True, "refused": 0, "below": [], "below_count": 0, "marks": []}
            assert found["new.other.com"] == found["203.0.113.9"] == nothing

    run(work())


def test_what_came_after_the_question_says_nothing_of_it(tmp_path: Path) -> None:
    """The attempt that is asked about is in the log too, and its host is new all the same."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = str((await lab.create("box", mode="ask"))["id"])
            now = times.now()
            await logged(lab, cell, ("new.example.com", "blocked"))
            (question,) = await tell(lab, cell, told("new.example.com", since=now))
            assert (question["new"], question["refused"]) == (True, 0)

    run(work())


def test_the_connection_that_waits_was_not_refused_before(tmp_path: Path) -> None:
    """Its own record is in the log as a refusal, and is not counted; those from before the question are."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = str((await lab.create("box", mode="ask"))["id"])
            with contextlib.closing(Writer(lab)) as writer:
                for count, host in enumerate(("known.example", "known.example", "other.example"), 1):
                    await writer.attempt(cell, host, "blocked")
                    await until(partial(_holds, lab, count))
                since = times.now()
                await writer.attempt(cell, "known.example", "blocked")
                await until(partial(_holds, lab, 4))
            found = await tell(
                lab, cell, told("known.example", since=since), told("other.example", since=since)
            )
            assert {each["host"]: each["refused"] for each in found} == {
                "known.example": 2,
                "other.example": 1,
            }

    run(work())


async def _holds(lab: Lab, count: int) -> bool:
    """Whether the log of `box` has so many events."""
    return len((await lab.client.get("/sandboxes/box/audit/egress")).json()["events"]) == count


def test_another_sandbox_s_attempts_are_its_own(tmp_path: Path) -> None:
    """What one sandbox tried is not told in the question of another."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = str((await lab.create("box"))["id"])
            other = str((await lab.create("other", mode="ask"))["id"])
            await logged(lab, cell, ("a.example.com", "blocked"))
            found = await detailed(lab, other, "a.example.com", "b.example.com")
            assert {each["new"] for each in found.values()} == {True}
            assert {each["below_count"] for each in found.values()} == {0}

    run(work())


class SlowStore:
    """A database whose answers come when the test says so."""

    def __init__(self) -> None:
        self.reads: list[asyncio.Future[dict[str, QuestionDetails]]] = []

    async def read(self, work: Any) -> dict[str, QuestionDetails]:
        """Wait for the test."""
        self.reads.append(asyncio.get_running_loop().create_future())
        return await self.reads[-1]


def test_two_looks_at_once_each_have_their_own_questions() -> None:
    """What one look forgets while another waits for the database is still in the other's answer."""

    async def work() -> None:
        store = SlowStore()

        async def caught_up() -> None:
            """Nothing was recorded."""

        book = QuestionBook(cast("Store", store), caught_up, lambda: "abc")
        nothing = QuestionDetails(new=True, refused=0, below=(), below_count=0, marks=())
        a, b, c = (QuestionAbout(each, "sb_1", canonical_host(f"{each}.example"), 443, 1) for each in "abc")
        looks: list[asyncio.Task[Any]] = []

        async def look(*questions: QuestionAbout) -> None:
            looks.append(asyncio.ensure_future(book.of(questions)))
            while len(store.reads) < len(looks):  # noqa: ASYNC110 (a read has no event)
                await asyncio.sleep(0)

        await look(a)
        store.reads[0].set_result({"a": nothing})
        await looks[0]
        await look(a, b)
        await look(c)
        store.reads[2].set_result({"c": nothing})
        assert set(await looks[2]) == {"c"}
        store.reads[1].set_result({"b": nothing})
        assert set(await looks[1]) == {"a", "b"}

    run(work())


def test_a_look_at_some_questions_forgets_none_of_the_others() -> None:
    """Details are looked up once while a question is open, whoever asks for others in between, and again where it is asked later."""

    async def work() -> None:
        store, open_ids = SlowStore(), {"a", "b"}

        async def caught_up() -> None:
            """Nothing was recorded."""

        book = QuestionBook(cast("Store", store), caught_up, lambda: open_ids)
        nothing = QuestionDetails(new=True, refused=0, below=(), below_count=0, marks=())
        a, b = (QuestionAbout(each, "sb_1", canonical_host(f"{each}.example"), 443, 1) for each in "ab")

        async def look(*questions: QuestionAbout) -> int:
            """Look, and give how often the database was read until then."""
            looking = asyncio.ensure_future(book.of(questions))
            while not looking.done():
                await asyncio.sleep(0)
                for each in store.reads:
                    if not each.done():
                        each.set_result({"a": nothing, "b": nothing})
            assert {*looking.result()} == {each.id for each in questions}
            return len(store.reads)

        assert await look(a, b) == 1
        assert await look() == 1
        assert await look(b) == 1
        assert await look(a, b) == 1
        open_ids.remove("a")
        assert await look(b) == 1
        open_ids.add("a")
        assert await look(a, b) == 2

    run(work())


def test_what_was_recorded_a_moment_ago_is_known(logs: Logs) -> None:
    """A refusal right before the question is among what is shown of it, though no one has read the log since."""

    async def caught_up() -> None:
        logs.take()

    logs.write(open_record(host="a.test"), verdict_record(verdict="blocked", host="a.test", port=443))
    book = QuestionBook(logs.store, caught_up, lambda: ())
    found = run(book.of([QuestionAbout("q", CELL, canonical_host("a.test"), 443, times.now())]))
    assert (found["q"].new, found["q"].refused) == (False, 1)


def test_every_relay_has_a_kind_and_a_source() -> None:
    """Names are canonical, and the source is a page."""
    for name, (kind, source) in RELAYS.items():
        assert canonical_host(name).text == name
        assert kind in KINDS
        assert source.startswith("https://")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("pastebin.com", "paste"),
        ("a.b.trycloudflare.com", "tunnel"),
        ("hooks.slack.com", "webhook"),
        ("slack.com", None),
        ("dns.google", "doh"),
        ("nongrok.io", None),
        ("203.0.113.9", None),
    ],
)
def test_a_relay_is_known_by_its_name_and_all_below(name: str, kind: str | None) -> None:
    """Not by a name that only ends alike."""
    assert relay_of(canonical_host(name)) == kind


@pytest.mark.parametrize(
    "name",
    [
        "3f9a0c77de4b21aa.example.com",
        "d3f8ykwhia686p.cloudfront.net",
        "x7k2q9v4m1zt.example.org",
        "qwrtplkjhgf.example",
        "data.3f9a0c77de4b21aa90bc.t.example.com",
    ],
)
def test_a_name_that_looks_random(name: str) -> None:
    """Long hex, letters and digits in turns, or no vowel for long."""
    assert looks_random(canonical_host(name))


@pytest.mark.parametrize(
    "name",
    [
        *sorted({host.pattern.partition(":")[0] for preset in OURS for host in preset.hosts}),
        "production.cloudflare.docker.com",
        "pkg-containers.githubusercontent.com",
        "s3.eu-central-1.amazonaws.com",
        "xn--bcher-kva.example",
        "ec2-203-0-113-25.compute-1.amazonaws.com",
        "203.0.113.9",
        "localhost",
    ],
)
def test_an_ordinary_name_does_not(name: str) -> None:
    """Hosts of the presets, of clouds, and of other scripts are not marked."""
    assert not looks_random(canonical_host(name))
    assert relay_of(canonical_host(name)) is None
