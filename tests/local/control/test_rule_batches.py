"""Several rules in one request: all or none, and a dry run that says what the request itself then does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.local.control.lab import Lab, control_plane, run

RULES = [
    {"pattern": "a.test", "list": "allow"},
    {"pattern": "b.test", "list": "deny", "note": "why"},
]

CHANGES: tuple[tuple[str, str, dict[str, Any] | None], ...] = (
    ("POST", "/egress/allow", {"domain": "A.test."}),
    ("POST", "/egress/allow", {"domains": ["new.test", "a.test", "b.test"], "note": "why"}),
    ("POST", "/egress/allow", {"domains": ["db.test:5432"], "private": ["192.168.0.0/16", "10.0.0.5"]}),
    ("POST", "/egress/deny", {"domain": "a.test"}),
    ("POST", "/egress/deny", {"domains": ["B.test", "*.github.io"], "broad": True}),
    ("POST", "/egress/remove", {"domains": ["b.test", "A.test"]}),
    ("POST", "/egress/remove", {"domain": "b.test"}),
    ("DELETE", "/egress/rules?domain=a.test", None),
    ("PUT", "/egress/mode", {"mode": "deny"}),
    ("PUT", "/egress/mode", {"mode": "warn"}),
    ("PUT", "/egress", {"mode": "deny", "rules": [{"pattern": "a.test", "list": "deny"}]}),
    # What is refused is refused by a dry run too, with the same words.
    ("POST", "/egress/allow", {"domains": ["new.test", "a b"]}),
    ("POST", "/egress/allow", {"domains": ["new.test", "NEW.test"]}),
    ("POST", "/egress/allow", {"domains": ["new.test"], "domain": "new.test"}),
    ("POST", "/egress/allow", {"domains": ["new.test"], "private": ["ten"]}),
    ("POST", "/egress/deny", {"domains": ["new.test"], "private": ["10.0.0.5"]}),
    ("POST", "/egress/remove", {"domains": ["a.test", "missing.test"]}),
    ("POST", "/egress/remove", {"domains": ["a.test", "a.test"]}),
    ("POST", "/egress/remove", {}),
    ("DELETE", "/egress/rules?domain=missing.test", None),
)
REFUSED = 9
"""How many at the end of `CHANGES` are refused."""


async def _rules(lab: Lab) -> list[tuple[str, str]]:
    """The rules that are stored, each with its list."""
    found = (await lab.client.get("/egress")).json()["rules"]
    return [(rule["pattern"], rule["list"]) for rule in found]


@pytest.mark.parametrize("scope", ["", "/sandboxes/box"])
def test_a_dry_run_says_what_the_request_then_does(tmp_path: Path, scope: str) -> None:
    """Status and answer of a dry run are those of the request itself, and a dry run and a refusal change nothing."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            lab.gateway.cut = 3
            for number, (method, path, body) in enumerate(CHANGES):
                await lab.client.put(f"{scope}/egress", json={"mode": "warn", "rules": RULES})
                before = (await lab.client.get(f"{scope}/egress")).json(), lab.policies[cell]
                dry = await lab.client.request(
                    method, f"{scope}{path}{'&' if '?' in path else '?'}dry_run=true", json=body
                )
                assert ((await lab.client.get(f"{scope}/egress")).json(), lab.policies[cell]) == before
                done = await lab.client.request(method, f"{scope}{path}", json=body)
                told, answer = _timeless(dry.json()), _timeless(done.json())
                assert (dry.status_code, told) == (done.status_code, answer), (path, body)
                if number >= len(CHANGES) - REFUSED:
                    assert done.status_code in (400, 404), body
                    assert ((await lab.client.get(f"{scope}/egress")).json(), lab.policies[cell]) == before
                else:
                    assert (done.status_code, answer["cut"]) == (200, 3), (path, body)

    run(work())


def _timeless(value: Any) -> Any:
    """An answer without the times of rules: those are of the answer."""
    if isinstance(value, dict):
        return {key: _timeless(item) for key, item in value.items() if key != "created_at"}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def test_several_rules_are_one_change(tmp_path: Path) -> None:
    """Rules of one request are stored and pushed together, and the answer has each with what it covers and whether it is new."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            await lab.client.post("/egress/deny", json={"domain": "a.test"})
            asked = len(lab.gateway.asked)
            done = (
                await lab.client.post("/egress/deny", json={"domains": ["B.test", "a.test", "c.test"]})
            ).json()
            assert lab.gateway.asked[asked:].count("policy") == 1
            assert [(rule["pattern"], rule["list"], rule["changed"]) for rule in done["rules"]] == [
                ("b.test", "deny", True),
                ("a.test", "deny", False),
                ("c.test", "deny", True),
            ]
            assert "c.test alone" in done["rules"][2]["covers"]
            assert (done["changed"], done["mode"]) == (True, "warn")
            assert "pattern" not in done
            assert len(lab.policies[cell]["rules"]) == 3
            gone = (
                await lab.client.post("/egress/remove", json={"domains": ["c.test", "A.test", "b.test"]})
            ).json()
            assert [rule["pattern"] for rule in gone["rules"]] == ["c.test", "a.test", "b.test"]
            assert await _rules(lab) == []

    run(work())


def test_one_rule_is_answered_as_v0_clients_know_it(tmp_path: Path) -> None:
    """A request with `domain` has its rule at the top of the answer, where it always was."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            done = (await lab.client.post("/egress/allow", json={"domain": "a.test"})).json()
            one = {key: done.pop(key) for key in ("pattern", "covers", "list")}
            assert one == {"pattern": "a.test", "covers": done["rules"][0]["covers"], "list": "allow"}
            assert (done["changed"], done["cut"], done["mode"]) == (True, 0, "warn")
            gone = (await lab.client.delete("/egress/rules", params={"domain": "A.test"})).json()
            assert (gone["pattern"], gone["list"], gone["cut"]) == ("a.test", "allow", 0)

    run(work())
