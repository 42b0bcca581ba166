"""The change log: who changed what, when, from what to what; recorded in the transaction of the change or not at all."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.local.control.conftest import HOUR
from tests.local.control.lab import KEY, Lab, by_tcp, control_plane, run, until
from tests.local.control.test_access import OTHER
from tests.local.control.test_keys import free_port
from tests.local.control.test_terms import Watch

from irons_local.control.store import changelog
from irons_local.control.store.changelog import ITSELF, ORIGIN, ChangeQuery, What
from irons_local.control.store.database import Store, StoreError

SECRET = "marker-of-a-secret-7f3a"
FACE = {"X-Irons-Face": "cli", "X-Irons-Request": "request-1"}


async def changes(lab: Lab, path: str = "/audit/changes", **query: Any) -> list[dict[str, Any]]:
    """Return the changes that a request finds."""
    answer = await lab.client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["changes"]
    return found


def brief(found: list[dict[str, Any]]) -> list[tuple[str, str, str, Any, Any]]:
    """What of a change, without who and when."""
    return [
        (
            each["what"],
            each.get("sandbox_name", ""),
            each.get("subject", ""),
            each.get("before"),
            each.get("after"),
        )
        for each in found
    ]


def test_rules_and_modes_are_recorded_with_their_author(tmp_path: Path) -> None:
    """Each change of rules and modes names the user that the kernel names, the claimed face, and both states."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            lab.client.headers.update(FACE)
            send = lab.client.request
            await send("POST", "/egress/allow", json={"domain": "a.example", "note": "wanted"})
            await send("POST", "/egress/allow", json={"domain": "a.example", "note": "wanted"})
            await send("POST", "/egress/deny", json={"domain": "a.example"})
            await send("DELETE", "/egress/rules", params={"domain": "a.example"})
            await send("PUT", "/egress/mode", json={"mode": "deny"})
            await send("PUT", "/egress/mode", json={"mode": "deny"})
            found = await changes(lab)
            assert brief(found) == [
                ("rule-added", "", "a.example", None, {"list": "allow", "note": "wanted"}),
                ("rule-changed", "", "a.example", {"list": "allow", "note": "wanted"}, {"list": "deny"}),
                ("rule-removed", "", "a.example", {"list": "deny"}, None),
                ("mode-set", "", "", {"mode": "warn"}, {"mode": "deny"}),
            ]
            assert [each["id"] for each in found] == [1, 2, 3, 4]
            for each in found:
                assert (each["by"], each["uid"], each["claimed_face"]) == ("uid", os.getuid(), "cli")
                assert each["request"] == "request-1"

    run(work())


def test_what_is_refused_or_tried_in_vain_is_not_recorded(tmp_path: Path) -> None:
    """A dry run, an invalid rule, a rule that is missing and a policy of an old revision leave no change."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            send = lab.client.request
            await send("POST", "/egress/allow?dry_run=true", json={"domain": "a.example"})
            await send("POST", "/egress/remove", json={"domains": ["b.example"]})
            await send("POST", "/egress/allow", json={"domain": "not a host"})
            await send("PUT", "/egress/mode?dry_run=true", json={"mode": "deny"})
            stale = await send("PUT", "/egress", json={"rules": [], "revision": "0" * 32, "mode": "deny"})
            assert stale.status_code == 409
            assert await changes(lab) == []

    run(work())


def test_a_policy_is_recorded_as_a_whole_and_by_rule(tmp_path: Path) -> None:
    """Replacing a policy records each rule and the mode that changed, and the revisions before and after."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create()
            path = "/sandboxes/box/egress"
            before = (await lab.client.get(path)).json()["revision"]
            rules = [{"pattern": "a.example", "list": "allow", "private": ["10.0.0.7"]}]
            for _ in range(2):
                await lab.client.put(path, json={"rules": rules, "mode": "deny"})
            after = (await lab.client.get(path)).json()["revision"]
            found = await changes(lab, "/sandboxes/box/audit/changes")
            assert brief(found)[1:] == [
                ("mode-set", "box", "", {"mode": None}, {"mode": "deny"}),
                ("rule-added", "box", "a.example", None, {"list": "allow", "private": ["10.0.0.7"]}),
                ("policy-applied", "box", "", {"revision": before}, {"revision": after, "rules": 1}),
            ]

    run(work())


def test_a_policy_is_recorded_with_what_no_one_is_asked_about(tmp_path: Path) -> None:
    """A record has the patterns of `never` that were added and removed, and of a long list the first and how many are left out."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            long = [
                f"{'x' * 50}.{'x' * 50}.{'x' * 50}.{'x' * 50}.n{number:03}.example:*" for number in range(500)
            ]
            for body in (
                {"rules": [], "never": ["*:25", "a.example"]},
                {"rules": [], "never": ["b.example", "*:25"]},
                {"rules": [{"pattern": "c.example", "list": "allow"}]},
                {"rules": [], "never": long},
            ):
                assert (await lab.client.put("/egress", json=body)).status_code == 200
            found = [each["after"] for each in await changes(lab) if each["what"] == "policy-applied"]
            for each in found:
                del each["revision"]
            *short, large = found
            assert short == [
                {"rules": 0, "never_added": ["*:25", "a.example:*"]},
                {"rules": 0, "never_added": ["b.example:*"], "never_removed": ["a.example:*"]},
                {"rules": 1},
            ]
            assert len(json.dumps(large)) < 20_000
            added = large["never_added"]
            assert added
            assert added == long[: len(added)]
            assert len(added) + len(large["never_removed"]) + large["left_out"] == 502

    run(work())


def test_the_life_of_a_sandbox_is_recorded_without_secrets(tmp_path: Path) -> None:
    """Create, access, terms, stop, start and destroy are recorded; of variables the names alone, of keys no key."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            send = lab.client.request
            made = await lab.create(
                environment={"TOKEN": SECRET},
                ttl=3600,
                labels={"team": "red"},
                rules=[{"pattern": "a.example", "list": "allow"}],
            )
            await send("POST", "/sandboxes/box/access", json={"public_key": OTHER})
            keys = (await send("GET", "/sandboxes/box/access")).json()["keys"]
            await send("DELETE", f"/sandboxes/box/access/{keys[1]['id']}")
            await send("PATCH", "/sandboxes/box", json={"ttl": 7200, "rm": True})
            await send("POST", "/sandboxes/box/extend", json={"seconds": 60})
            await send("POST", "/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            await send("POST", "/sandboxes/box/start")
            await lab.reaches("box", "ready")
            await send("POST", "/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            await send("DELETE", "/sandboxes/box")
            found = await changes(lab, "/sandboxes/box/audit/changes")
            assert found == await changes(lab, f"/sandboxes/{made['id']}/audit/changes")
            assert [each["what"] for each in found] == [
                "sandbox-created",
                "rule-added",
                "access-added",
                "access-removed",
                "terms-changed",
                "terms-changed",
                "sandbox-stopped",
                "sandbox-started",
                "sandbox-stopped",
                "sandbox-destroyed",
            ]
            created = found[0]["after"]
            assert created["environment"] == ["TOKEN"]
            assert (created["labels"], created["ttl"]) == ({"team": "red"}, 3600)
            assert found[2]["subject"] == keys[1]["fingerprint"] == found[3]["subject"]
            assert found[4]["before"]["ttl"] == 3600
            assert (found[4]["after"]["ttl"], found[4]["after"]["rm"]) == (7200, True)
            assert found[5]["before"]["ends_at"] < found[5]["after"]["ends_at"]
            assert found[6]["before"] == {"status": "ready"}
            assert found[9].get("after") is None
            assert {each["sandbox_id"] for each in found} == {made["id"]}
            text = json.dumps(found)
            assert SECRET not in text
            assert KEY.split()[1] not in text
            assert OTHER.split()[1] not in text

    run(work())


def test_api_keys_are_authors_and_subjects(tmp_path: Path) -> None:
    """Making and revoking a key is recorded without the key, and what it does is recorded under its label."""
    port = free_port()

    async def work() -> None:
        async with (
            control_plane(tmp_path, host="127.0.0.1", port=port) as lab,
            by_tcp(port) as remote,
        ):
            made = (await lab.client.post("/keys", json={"label": "laptop"})).json()
            bearer = {"authorization": f"Bearer {made['key']}", "X-Irons-Face": "library"}
            await remote.post("/egress/allow", json={"domain": "a.example"}, headers=bearer)
            await remote.post("/egress/allow", json={"domain": "b.example"}, headers={"X-Irons-Face": "cli"})
            await lab.client.delete("/keys/laptop")
            found = await changes(lab)
            assert brief(found) == [
                ("key-made", "", "laptop", None, {"id": made["id"], "label": "laptop", "role": "admin"}),
                ("rule-added", "", "a.example", None, {"list": "allow"}),
                ("key-revoked", "", "laptop", {"id": made["id"], "label": "laptop", "role": "admin"}, None),
            ]
            assert [each["by"] for each in found] == ["uid", "key", "uid"]
            rule = found[1]
            assert (rule["key_id"], rule["key_label"], rule["claimed_face"]) == (
                made["id"],
                "laptop",
                "library",
            )
            assert "uid" not in rule
            assert made["key"] not in json.dumps(found)

    run(work())


@pytest.mark.parametrize("claimed", ["", "x" * 65, "cli\x1b[2J", "\xe9"])
def test_a_face_that_is_none_is_not_kept(tmp_path: Path, claimed: str) -> None:
    """What a client claims is kept only as short plain text."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            header = {b"X-Irons-Face": claimed.encode("latin-1")} if "\x1b" not in claimed else {}
            await lab.client.put("/egress/mode", json={"mode": "deny"}, headers=header)
            (found,) = await changes(lab)
            assert "claimed_face" not in found

    run(work())


def test_what_happens_by_itself_is_recorded_as_that(tmp_path: Path) -> None:
    """A deadline, a machine that ends and a failed start are changes by irons, with the reason."""

    async def work() -> None:
        clock = Watch()
        async with control_plane(tmp_path, instant=clock) as lab:
            made = await lab.create("box", ttl=60, rm=True)
            clock.pass_by(61)
            await lab.server.plane.deadlines.look()
            await until(lambda: _gone(lab, "box"))
            await lab.create("other")
            lab.engine.die((await lab.status("other"))["id"])
            await lab.reaches("other", "stopped")
            lab.engine.trouble["start"] = OSError("no such luck")
            await lab.client.post("/sandboxes/other/start")
            await lab.reaches("other", "error")
            found = [each for each in await changes(lab) if each["by"] == "irons"]
            assert [(each["what"], each["sandbox_name"]) for each in found] == [
                ("sandbox-stopped", "box"),
                ("sandbox-destroyed", "box"),
                ("sandbox-stopped", "other"),
                ("sandbox-failed", "other"),
            ]
            assert all("at the end of its time to live" in each["reason"] for each in found[:2])
            assert "by itself" in found[2]["reason"]
            assert "no such luck" in found[3]["reason"]
            assert found[0]["sandbox_id"] == made["id"]
            assert all("uid" not in each and "request" not in each for each in found)

    run(work())


async def _gone(lab: Lab, name: str) -> bool:
    return (await lab.client.get(f"/sandboxes/{name}")).status_code == 404


def test_what_a_client_that_left_leaves_behind_is_ended_by_irons(tmp_path: Path) -> None:
    """The end of a held sandbox is no change of the request that created it, though that request began the wait."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            lab.server.plane.holds._grace = 0.05
            await lab.client.post("/sandboxes", json={"name": "box", "public_key": KEY, "held": True})
            await until(lambda: _gone(lab, "box"))
            ended = [each for each in await changes(lab) if each["what"] == "sandbox-destroyed"]
            assert [(each["by"], each["reason"]) for each in ended] == [("irons", "its client is gone")]
            lab.server.plane.holds._grace = HOUR
            await lab.client.post("/sandboxes", json={"name": "kept", "public_key": KEY, "held": True})
            await lab.client.delete("/sandboxes/kept/hold")
            assert (await changes(lab))[-1]["what"] == "hold-released"

    run(work())


def test_pages_and_waiting(tmp_path: Path) -> None:
    """Pages go on by token; a request that waits is answered by the next change, and by the server's end."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            for number in range(5):
                await lab.client.post("/egress/allow", json={"domain": f"h{number}.example"})
            first = (await lab.client.get("/audit/changes", params={"page_size": 2})).json()
            rest = (await lab.client.get("/audit/changes", params={"pageToken": first["page_token"]})).json()
            assert [each["id"] for each in (*first["changes"], *rest["changes"])] == [1, 2, 3, 4, 5]
            newest = await changes(lab, limit=2)
            assert [each["id"] for each in newest] == [4, 5]
            late = await changes(lab, since="2999-01-01T00:00:00Z")
            assert late == []
            waiting = asyncio.ensure_future(changes(lab, pageToken=5, wait=60))
            await asyncio.sleep(0)
            await lab.client.put("/egress/mode", json={"mode": "deny"})
            assert [each["what"] for each in await waiting] == ["mode-set"]
            assert (await lab.client.get("/sandboxes/none/audit/changes")).status_code == 404

    run(work())


def test_only_the_newest_are_kept_and_the_rest_is_counted(tmp_path: Path) -> None:
    """The log is bounded by a setting, and says how many changes after a token made room for others."""

    async def work() -> None:
        async with control_plane(tmp_path, keep_changes=3) as lab:
            for number in range(5):
                await lab.client.post("/egress/allow", json={"domain": f"h{number}.example"})
            answer = (await lab.client.get("/audit/changes")).json()
            assert [each["id"] for each in answer["changes"]] == [3, 4, 5]
            assert answer["rotated"] == 2
            later = (await lab.client.get("/audit/changes", params={"pageToken": 1})).json()
            assert later["rotated"] == 1
            assert "rotated" not in (await lab.client.get("/audit/changes", params={"pageToken": 2})).json()

    run(work())


def test_a_change_that_fails_leaves_no_record(tmp_path: Path) -> None:
    """The record is in the transaction of the change: both are rolled back, and an id is not lost."""
    store = Store(tmp_path / "db")
    changelog.keep_only(store, 10)

    def failing(connection: sqlite3.Connection) -> None:
        changelog.record(connection, What.MODE_SET)
        raise StoreError("no")

    with pytest.raises(StoreError, match="no"):
        store.write_now(failing)
    store.write_now(lambda connection: changelog.record(connection, What.KEY_MADE, subject="k"))
    page = store.write_now(lambda connection: changelog.page(connection, ChangeQuery()))
    assert [(each["id"], each["what"]) for each in page.changes] == [(1, "key-made")]
    assert ORIGIN.get() is ITSELF
    store.close()
