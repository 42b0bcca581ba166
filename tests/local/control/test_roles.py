"""Roles of API keys: a table of every route and role, and what a key of the role `user` tries on sandboxes that are not its own."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
from tests.local.control.lab import KEY, run, until
from tests.local.control.team import is_refusal, made, team
from tests.local.control.test_audit_api import Writer

from irons_local.control.api.app import ROUTES, make_app
from irons_local.control.api.roles import ACCESS
from irons_local.control.api.routing import ApiRoute
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
    "GET /metrics": Line(True, False),
    "GET /keys": Line(False, False),
    "POST /keys": Line(False, False, {"label": "minted", "role": "admin"}),
    "DELETE /keys/{id}": Line(False, False),
    "GET /fleet/members": Line(False, False),
    "POST /fleet/members": Line(False, False, {"name": "n2"}),
    "DELETE /fleet/members/{name}": Line(False, False),
    "POST /sandboxes": Line(False, True, {"name": "new", "public_key": KEY}),
    "DELETE /snapshots/{snapshot}": Line(False, True),
    "POST /sandboxes/{name}/start": Line(False, True, {}),
    "POST /sandboxes/{name}/stop": Line(False, True, {}),
    "DELETE /sandboxes/{name}": Line(False, True),
}
"""Every route, in an order in which each works."""
OWNERS = ("/keys", "/keys/{id}", "/fleet/members", "/fleet/members/{name}")
"""What is served on the unix socket alone."""


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
                assert is_refusal(answer) is not may, (line, answer.text)
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
    """A key of the role `admin`, as all were before, may do with each sandbox what the unix socket does, but for keys and members of a fleet."""

    async def work() -> None:
        async with team(tmp_path) as found:
            for line in TABLE:
                answer = await _sent(found.admin, line, found.named["theirs"], "theirs")
                assert is_refusal(answer) is (line.split()[1] in OWNERS), (line, answer.text)
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


def test_a_copy_of_another_s_sandbox_is_refused(tmp_path: Path) -> None:
    """By fork, by its snapshot's name or id, and by restore; of several names of which one is taken, none is made."""

    async def work() -> None:
        async with team(tmp_path) as found:
            snapshots = (await found.lab.client.get("/snapshots")).json()["snapshots"]
            theirs = next(each for each in snapshots if each["name"] == "theirs-kept")
            new = {"name": "copy", "public_key": KEY}
            for name in (theirs["name"], theirs["id"]):
                assert is_refusal(await found.user.post("/sandboxes", json={**new, "snapshot": name}))
                restored = await found.user.post("/sandboxes/mine/restore", json={"snapshot": name})
                assert is_refusal(restored)
                assert is_refusal(await found.user.delete(f"/snapshots/{name}"))
            assert is_refusal(await found.user.post("/sandboxes/theirs/fork", json={"names": ["copy"]}))
            both = await found.user.post("/sandboxes/mine/fork", json={"names": ["copy", "theirs"]})
            assert both.status_code == 409
            assert (await found.lab.client.get("/sandboxes/copy")).status_code == 404
            own = await found.user.post("/sandboxes", json={**new, "snapshot": "mine-kept"})
            assert own.status_code == 202, own.text
            await found.lab.reaches("copy", "ready")
            assert (await found.user.get("/sandboxes/copy")).status_code == 200

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
            await made(found.other, found.lab, "mine")
            assert await hosts(found.user, "mine") == 403
            assert await hosts(found.user, cell) == ["tried.example"]
            assert await hosts(found.other, "mine") == []
            assert is_refusal(await found.user.post("/sandboxes/mine/stop"))

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
                assert is_refusal(answer) is refused, answer.text

    run(work())


def test_every_route_has_its_roles_in_the_documentation() -> None:
    """docs/api.md says of each route what the three roles may do."""
    text = (Path(__file__).parents[3] / "docs/api.md").read_text()
    rows = {line.split("|")[1].strip(" `"): line for line in text.splitlines() if line.startswith("| `")}
    for line, wanted in TABLE.items():
        auditor, user, admin = (each.strip() for each in rows[line].split("|")[2:5])
        assert (auditor != "no", user != "no") == (wanted.auditor, wanted.user), line
        assert admin == ("on the socket" if line.split()[1] in OWNERS else "yes")
