"""What lists, logs and questions of all sandboxes show to an API key of the role `user`: what it created."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.local.control.asking import tell, told
from tests.local.control.lab import run, until
from tests.local.control.team import is_refusal, made, team
from tests.local.control.test_audit_api import Writer

from irons_local.control.audit.events import Page, Query
from irons_local.control.audit.log import LONGEST_WAIT, Audit
from irons_local.control.egress.rules_and_modes import Egress


def test_lists_have_what_the_key_created(tmp_path: Path) -> None:
    """Sandboxes, snapshots, questions and modes: a user sees its own, an auditor all but questions, which it may not answer."""

    async def work() -> None:
        async with team(tmp_path) as found:

            async def listed(client: httpx.AsyncClient, path: str, member: str, key: str) -> list[str]:
                rows = (await client.get(path)).json()[member]
                return sorted(row if isinstance(row, str) else row[key] for row in rows)

            cells = {name: about["cell"] for name, about in found.named.items()}
            await tell(found.lab, cells["theirs"], told("theirs.example"), others=7)
            for path, member, key, own, every in (
                ("/sandboxes", "sandboxes", "name", ["mine"], ["mine", "theirs"]),
                ("/snapshots", "snapshots", "name", ["mine-kept"], ["mine-kept", "theirs-kept"]),
                ("/egress/mode", "differs", "", ["mine"], ["mine", "theirs"]),
                ("/egress/mode", "asking", "", ["mine"], ["mine", "theirs"]),
            ):
                assert await listed(found.user, path, member, key) == own
                assert await listed(found.auditor, path, member, key) == every
                assert await listed(found.admin, path, member, key) == every
            for client, asked, others in (
                (found.user, ["mine"], []),
                (found.auditor, [], []),
                (found.admin, ["mine", "theirs"], ["theirs"]),
            ):
                assert await listed(client, "/questions", "questions", "sandbox_name") == asked
                assert await listed(client, "/questions", "others", "sandbox_name") == others

    run(work())


def test_the_log_of_all_is_that_of_the_key_s_own(tmp_path: Path) -> None:
    """As events, in columns, with what changed and what was rotated out, and once a sandbox is gone; an export is of one sandbox."""

    async def work() -> None:
        async with team(tmp_path) as found:
            writer = Writer(found.lab)
            for name, about in found.named.items():
                await writer.attempt(about["cell"], f"{name}.test")
            writer.close()
            await found.lab.store.write(
                lambda connection: connection.execute("UPDATE subjects SET rotated = 1, rotated_before = 2")
            )

            async def read(client: httpx.AsyncClient, **query: Any) -> dict[str, Any]:
                answer = await client.get("/audit/egress", params=query)
                assert answer.status_code == 200, answer.text
                told: dict[str, Any] = answer.json()
                return told

            for client, own in (
                (found.user, ["mine"]),
                (found.other, ["theirs"]),
                (found.auditor, ["mine", "theirs"]),
            ):
                hosts = [f"{name}.test" for name in own]
                told = await read(client)
                assert sorted(each["host"] for each in told["events"]) == hosts
                assert sorted(each["sandbox_name"] for each in told["rotated"]) == own
                assert sorted((await read(client, columns="host"))["columns"]["host"]) == hosts
                assert (
                    sorted(each["host"] for each in (await read(client, limit=10, changes=0))["events"])
                    == hosts
                )
                ids = ",".join(str(each["id"]) for each in (await read(found.auditor))["events"])
                assert sorted(each["host"] for each in (await read(client, ids=ids))["events"]) == hosts
            assert is_refusal(await found.user.get("/audit/egress", params={"export": "true"}))
            one = await found.user.get("/sandboxes/mine/audit/egress", params={"export": "true"})
            assert one.status_code == 200
            await found.user.post("/sandboxes/mine/stop")
            await found.lab.reaches("mine", "stopped")
            assert (await found.user.delete("/sandboxes/mine")).status_code == 200
            assert [each["host"] for each in (await read(found.user))["events"]] == ["mine.test"]

    run(work())


def test_following_the_log_has_what_is_created_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower gets the first event of a sandbox that its key creates while it waits."""
    reads = asyncio.Event()
    page = Audit.page

    async def noted(self: Audit, query: Query, wait: float = 0.0) -> Page:
        reads.set()
        return await page(self, query, wait)

    monkeypatch.setattr(Audit, "page", noted)

    async def work() -> None:
        async with team(tmp_path) as found:
            writer = Writer(found.lab)
            await writer.attempt(found.named["mine"]["cell"], "before.test")

            async def follow(after: int) -> dict[str, Any]:
                params = {"pageToken": after, "wait": LONGEST_WAIT}
                answer = await found.user.get("/audit/egress", params=params, timeout=None)
                told: dict[str, Any] = answer.json()
                return told

            token = (await follow(0))["page_token"]
            reads.clear()
            following = asyncio.ensure_future(follow(token))
            await reads.wait()
            await writer.attempt(await made(found.user, found.lab, "fresh"), "fresh.test")
            seen = await following
            # On a slow machine the wait may end first. Where the event was passed over, the token is behind it.
            while not seen["events"] and seen["page_token"] == token:
                seen = await follow(token)
            writer.close()
            assert [each["host"] for each in seen["events"]] == ["fresh.test"]

    run(work())


def test_following_questions_is_about_the_key_s_own(tmp_path: Path) -> None:
    """Another's question neither ends the wait nor shows, nor does an answer to it; only connections of the user's own sandbox wait for it, an auditor's for none."""

    async def work() -> None:
        async with team(tmp_path) as found:
            mine, theirs = (found.named[name]["cell"] for name in ("mine", "theirs"))
            heard: list[dict[str, Any]] = []
            answer = found.lab.gateway._answer

            async def listening(message: Any) -> None:
                if message.body["op"] == "questions.watch":
                    heard.append(message.body)
                await answer(message)

            found.lab.gateway._answer = listening  # type: ignore[method-assign]
            seen = (await found.auditor.get("/questions", params={"watch": "true", "idle": 1})).json()
            assert (seen["watched"], heard) == (False, [])
            params: dict[str, Any] = {"watch": "true", "idle": 1}
            seen = (await found.user.get("/questions", params=params)).json()
            assert (await found.other.get("/questions")).json()["watched"] is False

            async def told_of() -> bool:
                return bool(heard)

            await until(told_of)
            assert heard[0]["lease"] < 0.001
            assert set(heard[0]["cells"]) == {mine}
            assert (heard[0]["cells"][mine]["hold"], heard[0]["cells"][mine]["keys"]) == (4.0, 1)
            token = seen["token"]
            await tell(found.lab, theirs, told("another.example"))
            again = (await found.user.get("/questions", params={"after": token, "wait": 0})).json()
            assert again["token"] == token

            async def follow() -> dict[str, Any]:
                params = {"after": token, "wait": 60}
                page: dict[str, Any] = (
                    await found.user.get("/questions", params=params, timeout=None)
                ).json()
                return page

            waiting = asyncio.ensure_future(follow())
            await tell(found.lab, theirs, told("another.example"), told("third.example"))
            given = {"host": "other.example", "port": 443, "reply": "no", "left": 300}
            await tell(found.lab, theirs, told("another.example"), answers=[given])
            await tell(found.lab, mine, told("mine.example"), told("more.example"), answers=[given])
            page = await waiting
            # The server ends a wait after some seconds; the token is another one once there is something new to this key.
            while page["token"] == token:
                page = await follow()
            assert {each["host"] for each in page["questions"]} == {"mine.example", "more.example"}
            assert {each["sandbox_id"] for each in page["answers"]} == {mine}

    run(work())


def test_a_name_that_another_gets_meanwhile_shows_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the modes that differ the user sees those of sandboxes that are its own when they are read."""
    differing = Egress.differing

    async def work() -> None:
        async with team(tmp_path) as found:

            async def exchanged(self: Egress) -> dict[str, str]:
                monkeypatch.setattr(Egress, "differing", differing)
                await found.user.post("/sandboxes/mine/stop")
                await found.lab.reaches("mine", "stopped")
                assert (await found.user.delete("/sandboxes/mine")).status_code == 200
                await made(found.other, found.lab, "mine", mode="ask")
                return await differing(self)

            monkeypatch.setattr(Egress, "differing", exchanged)
            answer = (await found.user.get("/egress/mode", timeout=None)).json()
            assert not answer["differs"]
            assert "asking" not in answer

    run(work())
