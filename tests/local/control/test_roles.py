"""Roles of API keys: a table of every route and role, and what a key of the role `user` tries on sandboxes that are not its own."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from tests.local.control.lab import KEY, Lab, control_plane, run, until
from tests.local.control.test_audit_api import Writer
from tests.local.control.test_keys import free_port
from tests.local.control.test_questions import tell, told

from irons_local.control.api.app import ROUTES, make_app
from irons_local.control.api.roles import ACCESS
from irons_local.control.api.routing import ApiRoute
from irons_local.control.audit.events import Page, Query
from irons_local.control.audit.log import LONGEST_WAIT, Audit
from irons_local.control.egress.rules_and_modes import Egress
from irons_local.control.schema.errors import HttpError
from irons_local.control.store import snapshots
from irons_local.control.store.changelog import ORIGIN, Origin
from irons_local.errors import EngineError

PUT_RULE: Mapping[str, Any] = {"domain": "a.example"}
POLICY: Mapping[str, Any] = {"rules": [{"pattern": "a.example", "list": "allow"}]}


class Line(NamedTuple):
    """What the roles may do with a route.

    Attributes:
        auditor: may it.
        user: may it, with what its key created, or where the route is about nothing in particular.
        body: of the request; None for none.
        query: likewise.
    """

    auditor: bool
    user: bool
    body: Mapping[str, Any] | None = None
    query: Mapping[str, Any] = {}


TABLE: Mapping[str, Line] = {
    "GET /sandboxes": Line(True, True),
    "GET /sandboxes/{name}": Line(True, True),
    "GET /sandboxes/{name}/boot": Line(True, True),
    "GET /sandboxes/{name}/ssh": Line(True, True),
    "GET /sandboxes/{name}/access": Line(True, True),
    "POST /sandboxes/{name}/access": Line(False, True, {"public_key": KEY}),
    "DELETE /sandboxes/{name}/access/{key}": Line(False, True),
    "PATCH /sandboxes/{name}": Line(False, True, {"ttl": 3600}),
    "POST /sandboxes/{name}/extend": Line(False, True, {"seconds": 60}),
    "POST /sandboxes/{name}/hold": Line(False, True, {}, {"wait": 0}),
    "DELETE /sandboxes/{name}/hold": Line(False, True),
    "GET /sandboxes/{name}/snapshots": Line(True, True),
    "POST /sandboxes/{name}/snapshots": Line(False, True, {}),
    "POST /sandboxes/{name}/fork": Line(False, True, {"names": ["copy"]}),
    "POST /sandboxes/{name}/restore": Line(False, True, {"snapshot": "SNAPSHOT"}),
    "GET /snapshots": Line(True, True),
    "GET /sandboxes/{name}/egress": Line(True, True),
    "PUT /sandboxes/{name}/egress": Line(False, True, POLICY),
    "POST /sandboxes/{name}/egress/allow": Line(False, True, PUT_RULE),
    "POST /sandboxes/{name}/egress/deny": Line(False, True, PUT_RULE),
    "POST /sandboxes/{name}/egress/remove": Line(False, True, {"domains": ["a.example"]}),
    "DELETE /sandboxes/{name}/egress/rules": Line(False, True, None, {"domain": "a.example"}),
    "GET /sandboxes/{name}/egress/mode": Line(True, True),
    "PUT /sandboxes/{name}/egress/mode": Line(False, True, {"mode": "deny"}),
    "GET /egress": Line(True, True),
    "PUT /egress": Line(False, False, POLICY),
    "POST /egress/allow": Line(False, False, PUT_RULE),
    "POST /egress/deny": Line(False, False, PUT_RULE),
    "POST /egress/remove": Line(False, False, {"domains": ["a.example"]}),
    "DELETE /egress/rules": Line(False, False, None, {"domain": "a.example"}),
    "GET /egress/mode": Line(True, True),
    "PUT /egress/mode": Line(False, False, {"mode": "deny"}),
    "GET /egress/check": Line(True, True, None, {"host": "a.example"}),
    "GET /questions": Line(True, True),
    "POST /questions/{id}": Line(False, True, {"answer": "no"}),
    "GET /audit/egress": Line(True, True),
    "GET /audit/changes": Line(True, False),
    "GET /sandboxes/{name}/audit/egress": Line(True, True),
    "GET /sandboxes/{name}/audit/hosts": Line(True, True),
    "GET /sandboxes/{name}/audit/totals": Line(True, True),
    "GET /sandboxes/{name}/audit/changes": Line(True, True),
    "GET /images": Line(True, True),
    "GET /version": Line(True, True),
    "GET /status": Line(True, False),
    "GET /keys": Line(False, False),
    "POST /keys": Line(False, False, {"label": "minted", "role": "admin"}),
    "DELETE /keys/{id}": Line(False, False),
    "POST /sandboxes": Line(False, True, {"name": "new", "public_key": KEY}),
    "DELETE /snapshots/{snapshot}": Line(False, True),
    "POST /sandboxes/{name}/start": Line(False, True, {}),
    "POST /sandboxes/{name}/stop": Line(False, True, {}),
    "DELETE /sandboxes/{name}": Line(False, True),
}
"""Every route, in an order in which each works."""


class Team(NamedTuple):
    """A control plane that a user, another user and an auditor reach by TCP, each with a sandbox of its own where it may have one.

    Attributes:
        lab: the control plane; its client is the owner's.
        user: a client with a key of the role `user`, which created the sandbox `mine`.
        other: another such client, which created `theirs`.
        auditor: a client with a key of the role `auditor`.
        admin: a client with a key of the role `admin`.
        named: what there is of each: the id of its sandbox, of its snapshot and of its question, by its name.
    """

    lab: Lab
    user: httpx.AsyncClient
    other: httpx.AsyncClient
    auditor: httpx.AsyncClient
    admin: httpx.AsyncClient
    named: Mapping[str, Mapping[str, str]]


async def _made(client: httpx.AsyncClient, lab: Lab, name: str, **more: Any) -> str:
    """Create a sandbox with a client's key, wait until it is ready, and give its id."""
    answer = await client.post("/sandboxes", json={"name": name, "public_key": KEY, **more})
    assert answer.status_code == 202, answer.text
    await lab.reaches(name, "ready")
    return str(answer.json()["id"])


@contextlib.asynccontextmanager
async def team(directory: Path, **config: Any) -> AsyncIterator[Team]:
    """Make a team, of which each sandbox in mode `ask` has a snapshot and a question; `config` is the server's."""
    port = free_port()
    async with contextlib.AsyncExitStack() as stack:
        lab = await stack.enter_async_context(control_plane(directory, host="127.0.0.1", port=port, **config))
        clients = []
        for label, role in (("user", "user"), ("other", "user"), ("auditor", "auditor"), ("admin", "admin")):
            made = (await lab.client.post("/keys", json={"label": label, "role": role})).json()
            assert made["role"] == role
            clients.append(
                await stack.enter_async_context(
                    httpx.AsyncClient(
                        base_url=f"http://127.0.0.1:{port}",
                        headers={"authorization": f"Bearer {made['key']}"},
                        timeout=60,
                    )
                )
            )
        user, other, auditor, admin = clients
        named: dict[str, dict[str, str]] = {}
        for client, name in ((user, "mine"), (other, "theirs")):
            cell = await _made(client, lab, name, mode="ask")
            kept = await client.post(f"/sandboxes/{name}/snapshots", json={"name": f"{name}-kept"})
            assert kept.status_code == 201, kept.text
            listed = await tell(lab, cell, told(f"{name}.example"))
            question = next(each["id"] for each in listed if each["sandbox_id"] == cell)
            named[name] = {"cell": cell, "snapshot": f"{name}-kept", "question": question}
        yield Team(lab, user, other, auditor, admin, named)


async def _sent(client: httpx.AsyncClient, line: str, about: Mapping[str, str], name: str) -> httpx.Response:
    """Send what the table has for a route, about a sandbox and what there is of it."""
    method, path = line.split(" ")
    wanted = TABLE[line]
    parts = {"{name}": name, "{snapshot}": about["snapshot"], "{id}": about["question"], "{key}": "SHA256:x"}
    for part, value in parts.items():
        path = path.replace(part, value)
    body = wanted.body
    if body is not None:
        body = {each: about["snapshot"] if said == "SNAPSHOT" else said for each, said in body.items()}
    return await client.request(method, path, params=dict(wanted.query), json=body)


def _is_refusal(answer: httpx.Response) -> bool:
    told = answer.json() if answer.status_code == 403 else {}
    return bool(told.get("error")) and {*told} <= {"error", "hint"}


def test_the_table_has_every_route() -> None:
    """No route is without a line, and none without a handler has one; the application does not start with one that has none."""
    lines = {f"{route.method} {route.path}" for route in ROUTES}
    assert lines == {*ACCESS} == {*TABLE}
    nothing: Any = None
    for path in ("/more", "/sandboxes/{other}"):
        with pytest.raises(LookupError):
            make_app(nothing, [*ROUTES, ApiRoute("GET", path, nothing, "More.")])
    make_app(nothing, ROUTES)


@pytest.mark.parametrize("role", ["auditor", "user", "other's"])
def test_each_role_may_do_what_the_table_says(tmp_path: Path, role: str) -> None:
    """Every route with a key of the role: let through, or 403 with the contract's error, and then nothing has changed."""

    async def work() -> None:
        async with team(tmp_path) as found:
            name = "mine" if role == "user" else "theirs"
            client = found.auditor if role == "auditor" else found.user
            for line, wanted in TABLE.items():
                may = wanted.auditor if role == "auditor" else wanted.user
                about_one = any(part in line for part in ("{name}", "{snapshot}", "{id}"))
                if role == "other's":
                    may = may and not about_one
                answer = await _sent(client, line, found.named[name], name)
                # What is removed may not be there.
                fine = (404,) if line.startswith("DELETE") or "/remove" in line else ()
                assert answer.status_code in fine or answer.status_code not in (400, 401, 404, 405, 500), (
                    line,
                    answer.text,
                )
                assert _is_refusal(answer) is not may, (line, answer.text)
                if may and line == "POST /sandboxes/{name}/stop":
                    await found.lab.reaches(name, "stopped")
            if role == "user":
                return
            changes = (await found.lab.client.get("/audit/changes")).json()["changes"]
            label = "auditor" if role == "auditor" else "user"
            by = [each["what"] for each in changes if each.get("key_label") == label]
            # What the fixture did, and the one sandbox that a user may make.
            assert by == (
                [] if role == "auditor" else ["sandbox-created", "snapshot-made", "sandbox-created"]
            )
            assert (await found.lab.status("theirs"))["status"] == "ready"

    run(work())


def test_an_admin_is_refused_nothing(tmp_path: Path) -> None:
    """A key of the role `admin`, as all were before, may do with each sandbox what the unix socket does, but for keys."""

    async def work() -> None:
        async with team(tmp_path) as found:
            for line in TABLE:
                answer = await _sent(found.admin, line, found.named["theirs"], "theirs")
                assert _is_refusal(answer) is ("/keys" in line), (line, answer.text)
                if line == "POST /sandboxes/{name}/stop":
                    await found.lab.reaches("theirs", "stopped")

    run(work())


def test_other_spellings_of_a_path_lead_to_no_other_sandbox(tmp_path: Path) -> None:
    """Encoded letters and slashes, dots, doubled slashes, the id, and HEAD: none of them reads or stops what another created."""

    async def work() -> None:
        async with team(tmp_path) as found:
            cell = found.named["theirs"]["cell"]
            for name in (
                "theirs", cell, "thei%72s", "%74%68%65%69%72%73", "theirs%2f", "mine%2f..%2ftheirs", "mine/../theirs",
                "./theirs", "theirs%00", "THEIRS", "theirs;mine", "theirs%20", "%2e%2e/sandboxes/theirs",
            ):  # fmt: skip
                for method, rest in (
                    ("GET", ""),
                    ("HEAD", ""),
                    ("GET", "/egress"),
                    ("POST", "/stop"),
                    ("DELETE", ""),
                ):
                    for begin in ("/sandboxes/", "//sandboxes/", "/sandboxes//"):
                        url = found.user.base_url.copy_with(raw_path=f"{begin}{name}{rest}".encode())
                        answer = await found.user.send(found.user.build_request(method, url))
                        assert answer.status_code in (400, 403, 404, 405), (method, url, answer.text)
                        assert cell not in answer.text or name == cell
            assert (await found.lab.status("theirs"))["status"] == "ready"

    run(work())


def test_a_user_rotates_out_only_its_own_changes(tmp_path: Path) -> None:
    """However many changes a user makes, or has irons make, the change log keeps those of others and says what is gone."""

    async def work() -> None:
        async with team(tmp_path, keep_changes=20) as found:

            async def kept(**query: Any) -> tuple[list[dict[str, Any]], int, int]:
                rows, lost, token, ever = [], 0, 0, 1
                while token < ever:
                    answer = (
                        await found.admin.get("/audit/changes", params={"pageToken": token, **query})
                    ).json()
                    rows += answer["changes"]
                    lost += answer.get("rotated", 0)
                    token, ever = answer["page_token"], answer["ever"]
                return rows, lost, ever

            before, lost, _ = await kept()
            assert lost == 0
            others = [each for each in before if each.get("key_label") != "user"]
            for first in ("a", "b"):
                rules = [{"pattern": f"{first}{number}.example", "list": "allow"} for number in range(30)]
                put = await found.user.put("/sandboxes/mine/egress", json={"rules": rules})
                assert put.status_code == 200, put.text
            timed = {"domains": [f"c{number}.example" for number in range(30)], "until": "stop"}
            assert (await found.user.post("/sandboxes/mine/egress/allow", json=timed)).status_code == 200
            assert (await found.user.post("/sandboxes/mine/stop", json={})).status_code == 202
            await found.lab.reaches("mine", "stopped")
            for query in ({}, {"page_size": 3}):
                rows, lost, ever = await kept(**query)
                assert [each for each in rows if each in others] == others
                assert len(rows) - len(others) == 20
                assert "rule-ended" in {each["what"] for each in rows}
                assert lost == ever - len(rows) > 100

    run(work())


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
            assert _is_refusal(await found.user.get("/audit/egress", params={"export": "true"}))
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
            await writer.attempt(await _made(found.user, found.lab, "fresh"), "fresh.test")
            seen = await following
            # On a slow machine the wait may end first. Where the event was passed over, the token is behind it.
            while not seen["events"] and seen["page_token"] == token:
                seen = await follow(token)
            writer.close()
            assert [each["host"] for each in seen["events"]] == ["fresh.test"]

    run(work())


def test_following_questions_is_about_the_key_s_own(tmp_path: Path) -> None:
    """Another's question neither ends the wait nor shows; only connections of the user's own sandbox wait for it, an auditor's for none."""

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
            await tell(found.lab, mine, told("mine.example"), told("more.example"))
            page = await waiting
            # The server ends a wait after some seconds; the token is another one once there is something new to this key.
            while page["token"] == token:
                page = await follow()
            assert {each["host"] for each in page["questions"]} == {"mine.example", "more.example"}

    run(work())


def test_a_copy_of_another_s_sandbox_is_refused(tmp_path: Path) -> None:
    """By fork, by its snapshot's name or id, and by restore; of several names of which one is taken, none is made."""

    async def work() -> None:
        async with team(tmp_path) as found:
            snapshots = (await found.lab.client.get("/snapshots")).json()["snapshots"]
            theirs = next(each for each in snapshots if each["name"] == "theirs-kept")
            new = {"name": "copy", "public_key": KEY}
            for name in (theirs["name"], theirs["id"]):
                assert _is_refusal(await found.user.post("/sandboxes", json={**new, "snapshot": name}))
                restored = await found.user.post("/sandboxes/mine/restore", json={"snapshot": name})
                assert _is_refusal(restored)
                assert _is_refusal(await found.user.delete(f"/snapshots/{name}"))
            assert _is_refusal(await found.user.post("/sandboxes/theirs/fork", json={"names": ["copy"]}))
            both = await found.user.post("/sandboxes/mine/fork", json={"names": ["copy", "theirs"]})
            assert both.status_code == 409
            assert (await found.lab.client.get("/sandboxes/copy")).status_code == 404
            own = await found.user.post("/sandboxes", json={**new, "snapshot": "mine-kept"})
            assert own.status_code == 202, own.text
            await found.lab.reaches("copy", "ready")
            assert (await found.user.get("/sandboxes/copy")).status_code == 200

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
                await _made(found.other, found.lab, "mine", mode="ask")
                return await differing(self)

            monkeypatch.setattr(Egress, "differing", exchanged)
            answer = (await found.user.get("/egress/mode", timeout=None)).json()
            assert not answer["differs"]
            assert "asking" not in answer

    run(work())


def test_a_snapshot_that_is_not_there_names_no_other(tmp_path: Path) -> None:
    """Neither one that never was nor one that is being made leads to a list of the snapshots of others."""

    async def work() -> None:
        async with team(tmp_path) as found:
            lab = found.lab
            held = lab.engine.hold["capture"] = asyncio.Event()
            lab.engine.calls.clear()
            making = asyncio.ensure_future(
                found.user.post("/sandboxes/mine/snapshots", json={"name": "mine-half"}, timeout=None)
            )

            async def begun() -> bool:
                return any(call == "capture" for call, _ in lab.engine.calls)

            await until(begun)
            for name in ("mine-half", "nothing"):
                new = {"name": "copy", "public_key": KEY, "snapshot": name}
                for answer in (
                    await found.user.post("/sandboxes", json=new),
                    await found.user.post("/sandboxes/mine/restore", json={"snapshot": name}),
                    await found.user.delete(f"/snapshots/{name}"),
                ):
                    assert answer.status_code == 404, answer.text
                    assert "theirs" not in answer.text
            # As where it is removed between the gate and the handler.
            ORIGIN.set(Origin(key_id="key_1", role="user"))
            for access in (lab.store.read, lab.store.write):
                with pytest.raises(HttpError) as refused:
                    await access(lambda connection: snapshots.get(connection, "nothing"))
                assert "theirs" not in f"{refused.value.text} {refused.value.hint}"
            held.set()
            assert (await making).status_code == 201

    run(work())


def test_what_an_admin_has_set_is_not_widened(tmp_path: Path) -> None:
    """Pins, mode warn, what `[ask] never` has, and answers for all sandboxes: 403 however they come, also with a dry run."""

    async def work() -> None:
        async with team(tmp_path) as found:
            (found.lab.paths.state / "config.toml").write_text('[ask]\nnever = ["*.paste.example"]\n')

            async def active() -> bool:
                return "never" in found.lab.policies[found.named["mine"]["cell"]]

            await until(active)
            egress = "/sandboxes/mine/egress"
            question = f"/questions/{found.named['mine']['question']}"
            pinned = {"pattern": "db.example:5432", "list": "allow", "private": ["10.0.0.5"]}
            pasted = {"pattern": "a.paste.example", "list": "allow"}
            new = {"name": "new", "public_key": KEY}
            for method, path, body in (
                ("POST", f"{egress}/allow", {"domain": "db.example:5432", "private": ["10.0.0.5"]}),
                ("POST", f"{egress}/allow", {"domain": "*:5432", "private": ["127.0.0.1"]}),
                ("POST", f"{egress}/allow", {"domains": ["fine.example", "a.paste.example"]}),
                ("POST", f"{egress}/allow", {"domain": "*:*"}),
                ("PUT", egress, {"rules": [{"pattern": "fine.example", "list": "allow"}, pinned]}),
                ("PUT", egress, {"rules": [pasted]}),
                ("PUT", egress, {"rules": [], "mode": "warn"}),
                ("PUT", f"{egress}/mode", {"mode": "warn"}),
                ("POST", "/sandboxes", {**new, "mode": "warn"}),
                ("POST", "/sandboxes", {**new, "rules": [pinned]}),
                ("POST", "/sandboxes", {**new, "snapshot": "mine-kept", "mode": "warn"}),
                ("POST", "/sandboxes/mine/fork", {"names": ["new"], "rules": [pinned]}),
                ("POST", "/sandboxes/mine/fork", {"names": ["new"], "mode": "warn"}),
                ("POST", question, {"answer": "always", "scope": "account"}),
            ):
                for query in ({}, {"dry_run": "true"}) if "egress" in path else ({},):
                    answer = await found.user.request(method, path, json=body, params=query)
                    assert _is_refusal(answer), (method, path, body, answer.text)
            policy = found.lab.policies[found.named["mine"]["cell"]]
            assert not policy["rules"]
            assert (await found.lab.client.get("/sandboxes/new")).status_code == 404
            assert (await found.user.post(question, json={"answer": "always"})).status_code == 200
            assert (
                await found.user.post(f"{egress}/deny", json={"domain": "x.paste.example"})
            ).status_code == 200
            assert (await found.user.put(f"{egress}/mode", json={"mode": None})).status_code == 200

    run(work())


def test_what_an_admin_opens_in_one_sandbox_stays_there(tmp_path: Path) -> None:
    """A pin that an admin put is kept by a user's own policy with it, and goes into no copy."""

    async def work() -> None:
        async with team(tmp_path) as found:
            pinned = {"domain": "db.example:5432", "private": ["10.0.0.5"]}
            assert (await found.admin.post("/sandboxes/mine/egress/allow", json=pinned)).status_code == 200
            rules = [
                {"pattern": "db.example:5432", "list": "allow", "private": ["10.0.0.5"]},
                {"pattern": "fine.example", "list": "allow"},
            ]
            answer = await found.user.put("/sandboxes/mine/egress", json={"rules": rules})
            assert answer.status_code == 200, answer.text
            assert _is_refusal(await found.user.post("/sandboxes/mine/fork", json={"names": ["copy"]}))
            less = {"names": ["copy"], "rules": [{"pattern": "fine.example", "list": "allow"}]}
            assert (await found.user.post("/sandboxes/mine/fork", json=less)).status_code == 202
            await found.lab.reaches("copy", "ready")

    run(work())


def test_a_copy_in_mode_warn_is_refused_with_what_helps(tmp_path: Path) -> None:
    """A sandbox that an admin put in mode `warn` is copied by its user with another mode, which the refusal names."""

    async def work() -> None:
        async with team(tmp_path) as found:
            warn = {"mode": "warn"}
            assert (await found.admin.put("/sandboxes/mine/egress/mode", json=warn)).status_code == 200
            copy: dict[str, Any] = {"names": ["copy"]}
            refused = await found.user.post("/sandboxes/mine/fork", json=copy)
            assert _is_refusal(refused)
            assert "--mode deny" in refused.json()["hint"]
            done = await found.user.post("/sandboxes/mine/fork", json={**copy, "mode": "deny"})
            assert done.status_code == 202, done.text
            await found.lab.reaches("copy", "ready")

    run(work())


def test_a_name_that_is_used_again_leads_to_nothing_of_another(tmp_path: Path) -> None:
    """Of a sandbox that is gone its creator reads the log, by name or id; once another has the name, by id alone."""

    async def work() -> None:
        async with team(tmp_path) as found:
            cell = found.named["mine"]["cell"]
            writer = Writer(found.lab)
            await writer.attempt(cell, "tried.example")
            writer.close()
            await found.user.post("/sandboxes/mine/stop")
            await found.lab.reaches("mine", "stopped")
            assert (await found.user.delete("/sandboxes/mine")).status_code == 200

            async def hosts(client: httpx.AsyncClient, name: str) -> int | list[str]:
                answer = await client.get(f"/sandboxes/{name}/audit/egress")
                if answer.status_code != 200:
                    return answer.status_code
                return [each["host"] for each in answer.json()["events"]]

            assert await hosts(found.user, "mine") == await hosts(found.user, cell) == ["tried.example"]
            assert await hosts(found.other, "mine") == await hosts(found.other, cell) == 403
            assert (await found.user.get("/sandboxes/mine")).status_code == 404
            await _made(found.other, found.lab, "mine")
            assert await hosts(found.user, "mine") == 403
            assert await hosts(found.user, cell) == ["tried.example"]
            assert await hosts(found.other, "mine") == []
            assert _is_refusal(await found.user.post("/sandboxes/mine/stop"))

    run(work())


def test_the_name_of_another_s_failed_sandbox_is_taken(tmp_path: Path) -> None:
    """A sandbox that could not be made gives way to its creator's next one of the name, and to no other user's."""

    async def work() -> None:
        async with team(tmp_path) as found:
            found.lab.engine.trouble["create"] = EngineError("machine", "there is no room")
            new = {"name": "broken", "public_key": KEY}
            failed = (await found.other.post("/sandboxes", json=new)).json()["id"]
            await found.lab.reaches("broken", "error")
            assert (await found.user.post("/sandboxes", json=new)).status_code == 409
            assert (await found.other.get("/sandboxes/broken")).json()["id"] == failed
            assert (await found.other.post("/sandboxes", json=new)).status_code == 202
            await found.lab.reaches("broken", "ready")

    run(work())


def test_an_auditor_has_nothing_tried(tmp_path: Path) -> None:
    """A live check connects: not for an auditor, and for a user only as its own sandbox would."""

    async def work() -> None:
        async with team(tmp_path) as found:
            live = {"host": "a.example", "live": "true"}
            for client, sandbox, refused in (
                (found.auditor, None, True),
                (found.auditor, "mine", True),
                (found.user, None, True),
                (found.user, "theirs", True),
                (found.user, "mine", False),
            ):
                query = live if sandbox is None else {**live, "sandbox": sandbox}
                answer = await client.get("/egress/check", params=query)
                assert _is_refusal(answer) is refused, answer.text

    run(work())


def test_every_route_has_its_roles_in_the_documentation() -> None:
    """docs/api.md says of each route what the three roles may do."""
    text = (Path(__file__).parents[3] / "docs/api.md").read_text()
    rows = {line.split("|")[1].strip(" `"): line for line in text.splitlines() if line.startswith("| `")}
    for line, wanted in TABLE.items():
        auditor, user, admin = (each.strip() for each in rows[line].split("|")[2:5])
        assert (auditor != "no", user != "no") == (wanted.auditor, wanted.user), line
        assert admin == ("on the socket" if "/keys" in line else "yes")
