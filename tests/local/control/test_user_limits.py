"""What an API key of the role `user` may not do to what an admin has set, also with its own sandboxes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.local.control.asking import tell, told
from tests.local.control.lab import KEY, run, until
from tests.local.control.team import is_refusal, made, team

from irons_policy.patterns import Pattern


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


def test_what_an_admin_has_set_is_not_widened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pins, mode warn, what `[ask] never` has, and answers for all sandboxes: 403 however they come, also with a dry run."""
    monkeypatch.setattr("irons_local.control.server._HOSTS_EVERY", 0.05)

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
                    assert is_refusal(answer), (method, path, body, answer.text)
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
            assert is_refusal(await found.user.post("/sandboxes/mine/fork", json={"names": ["copy"]}))
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
            assert is_refusal(refused)
            assert "--mode deny" in refused.json()["hint"]
            done = await found.user.post("/sandboxes/mine/fork", json={**copy, "mode": "deny"})
            assert done.status_code == 202, done.text
            await found.lab.reaches("copy", "ready")

    run(work())


def test_what_is_locked_is_read_once_for_all_rules(tmp_path: Path) -> None:
    """Many rules in one request read `[ask] never` as often as one does, and for an admin less often than for a user."""

    async def work() -> None:
        async with team(tmp_path) as found:
            egress = found.lab.server.plane.egress
            never, reads = egress.never, []

            def counted() -> tuple[Pattern, ...]:
                reads.append(1)
                return never()

            egress.never = counted

            async def read(client: httpx.AsyncClient, name: str, count: int) -> int:
                reads.clear()
                domains = [f"h{number}.{name}.example" for number in range(count)]
                answer = await client.post("/sandboxes/mine/egress/allow", json={"domains": domains})
                assert answer.status_code == 200, answer.text
                return len(reads)

            one = await read(found.user, "one", 1)
            assert await read(found.user, "many", 50) == one
            assert await read(found.admin, "all", 50) < one

    run(work())


def test_a_user_s_list_keeps_no_admin_from_answering(tmp_path: Path) -> None:
    """What a user has no one asked about binds answers about its own sandbox; an answer for all is refused by the name of an admin's."""

    async def work() -> None:
        async with team(tmp_path) as found:
            lab, cell = found.lab, found.named["theirs"]["cell"]
            every: dict[str, Any] = {"rules": [], "never": ["*"]}
            assert (await found.user.put("/sandboxes/mine/egress", json=every)).status_code == 200
            answer = {"answer": "always", "scope": "account"}
            own = f"/questions/{found.named['mine']['question']}"
            for body in ({"answer": "always"}, answer):
                refused = await found.admin.post(own, json=body)
                assert refused.status_code == 400
                assert "[ask] never of mine has: *:*" in refused.json()["error"]
            theirs = f"/questions/{found.named['theirs']['question']}"
            done = await found.admin.post(theirs, json=answer)
            assert done.status_code == 200, done.text
            await made(found.admin, lab, "kept", never=["*.kept.example"])
            listed = await tell(lab, cell, told("a.kept.example"))
            path = next(f"/questions/{each['id']}" for each in listed if each["host"] == "a.kept.example")
            refused = await found.admin.post(path, json=answer)
            assert refused.status_code == 400
            assert "[ask] never of kept has: *.kept.example:*" in refused.json()["error"]
            done = await found.admin.post(path, json={"answer": "always"})
            assert done.status_code == 200, done.text

    run(work())
