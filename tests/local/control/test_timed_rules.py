"""Rules that end by themselves, through the API: asked for, shown, ended, and in the change log."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.local.control.lab import Lab, control_plane, run

from irons_local import times
from irons_local.control.store.terms import SECOND, Instant
from irons_policy.policy import Policy


async def shown(lab: Lab, scope: str = "/sandboxes/box") -> dict[str, Any]:
    """The rules of a scope, each with its end."""
    found = (await lab.client.get(f"{scope}/egress")).json()["rules"]
    return {rule["pattern"]: rule.get("until") for rule in found}


async def ended(lab: Lab) -> list[tuple[str, str, str]]:
    """What the change log has of rules that ended."""
    changes = (await lab.client.get("/audit/changes")).json()["changes"]
    return [
        (each.get("sandbox_name", ""), each["subject"], each["reason"])
        for each in changes
        if each["what"] == "rule-ended" and "uid" not in each
    ]


def test_a_rule_for_an_hour(tmp_path: Path) -> None:
    """The gateway gets its end, the list shows it, and when it is over it is gone and noted as nobody's change."""

    async def work() -> None:
        passed = 0

        def clock() -> Instant:
            now = Instant.now()
            return Instant(now.boot, now.up + passed * SECOND, now.wall + passed * SECOND)

        async with control_plane(tmp_path, instant=clock) as lab:
            cell = (await lab.create())["id"]
            body = {"domain": "a.test", "for": 3600}
            answer = await lab.client.post("/sandboxes/box/egress/allow", json=body)
            assert answer.status_code == 200, answer.text
            (rule,) = Policy.from_json(lab.policies[cell]).rules
            assert rule.until is not None
            assert rule.until.at is not None
            assert rule.until.up is not None
            assert list(await shown(lab)) == ["a.test"]
            await lab.server._timed_rules.look()
            assert (list(await shown(lab)), await ended(lab)) == (["a.test"], [])
            passed = 3600
            await lab.server._timed_rules.look()
            assert await ended(lab) == [("box", "a.test", "its time is over")]
            assert await shown(lab) == {}

    run(work())


def test_a_rule_until_the_sandbox_stops(tmp_path: Path) -> None:
    """A stop ends it, and another one of the same sandbox stays; for all sandboxes there is no such rule."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create()
            post = lab.client.post
            for body in ({"domain": "a.test", "until": "stop"}, {"domain": "b.test"}):
                assert (await post("/sandboxes/box/egress/deny", json=body)).status_code == 200
            assert await shown(lab) == {"a.test": "stop", "b.test": None}
            refused = await post("/egress/allow", json={"domain": "a.test", "until": "stop"})
            assert (refused.status_code, refused.json()["error"]) == (
                400,
                "'a.test': a rule until stop is for one sandbox, not for all",
            )
            await post("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            assert await shown(lab) == {"b.test": None}
            assert await ended(lab) == [("box", "a.test", "its sandbox stopped")]

    run(work())


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"for": 60, "until": "stop"}, "a rule has 'for' or 'until', and not both"),
        (
            {"until": "soon"},
            "until: 'soon' is neither an RFC 3339 time such as 2026-02-19T16:42:26Z nor stop",
        ),
        ({"until": "2001-01-01T00:00:00Z"}, "until 2001-01-01T00:00:00Z: that is over"),
        ({"until": "2901-01-01T00:00:00Z"}, "until 2901-01-01T00:00:00Z: that is more than a year away"),
    ],
)
def test_an_end_that_cannot_be(tmp_path: Path, body: dict[str, Any], why: str) -> None:
    """Is refused with the reason, and nothing is stored."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            answer = await lab.client.post("/egress/allow", json={"domain": "a.test", **body})
            assert (answer.status_code, answer.json()["error"]) == (400, f"'a.test': {why}")
            assert (
                await lab.client.post("/egress/allow", json={"domain": "a.test", "for": 0})
            ).status_code == 400
            assert await shown(lab, "") == {}

    run(work())


def test_a_rule_that_stays_is_not_lost_to_one_that_ends(tmp_path: Path) -> None:
    """One with an end would take its place, and then neither is left; the other way round is what was asked for."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            post = lab.client.post
            await post("/egress/allow", json={"domain": "a.test"})
            answer = await post("/egress/deny", json={"domain": "a.test", "for": 60})
            assert (answer.status_code, answer.json()["error"]) == (
                409,
                "a.test is allowed for all sandboxes by a rule without an end, which one with an end would replace",
            )
            assert answer.json()["hint"] == "irons egress remove a.test --all removes it first"
            await post("/egress/allow", json={"domain": "b.test", "for": 60})
            first = (await shown(lab, ""))["b.test"]
            await post("/egress/allow", json={"domain": "b.test", "for": 90})
            assert (await shown(lab, ""))["b.test"] > first
            await post("/egress/allow", json={"domain": "b.test"})
            assert await shown(lab, "") == {"a.test": None, "b.test": None}

    run(work())


def test_a_policy_put_as_it_was_read_keeps_its_ends(tmp_path: Path) -> None:
    """A PUT of the same rules changes nothing, and what CLOCK_BOOTTIME says of them stays with the gateway."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create())["id"]
            await lab.client.post("/egress/allow", json={"domain": "a.test", "for": 600})
            before = Policy.from_json(lab.policies[cell]).rules[0].until
            found = (await lab.client.get("/egress")).json()
            rules = [{key: rule[key] for key in ("pattern", "list", "until")} for rule in found["rules"]]
            answer = await lab.client.put("/egress", json={"rules": rules, "revision": found["revision"]})
            assert (answer.status_code, answer.json()["changed"], answer.json()["added"]) == (200, [], [])
            after = Policy.from_json(lab.policies[cell]).rules[0].until
            assert before is not None
            assert after is not None
            assert (after, after.up) == (before, before.up)

    run(work())


def test_a_policy_of_which_a_rule_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule that was read and ended since is a conflict with what was read, so that clients read again; any other is refused."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            put = lab.client.put
            empty = (await lab.client.get("/egress")).json()["revision"]
            await lab.client.post("/egress/allow", json={"domain": "kept.test", "for": 3600})
            found = (await lab.client.get("/egress")).json()
            revision, (rule,) = found["revision"], found["rules"]
            kept = {key: rule[key] for key in ("pattern", "list", "until")}
            # The hour is over by this clock alone, so that the rule is not removed from the store.
            ahead = SimpleNamespace(now=lambda: times.now() + 7200 * SECOND)
            monkeypatch.setattr("irons_local.clocks.times", ahead)
            over = {"pattern": "a.test", "list": "allow", "until": "2020-01-01T00:00:00Z"}
            for rules, more, status in (
                ([kept], {"revision": revision}, 409),
                ([kept], {}, 400),
                ([over], {"revision": revision}, 400),
                ([over], {}, 400),
                ([{**kept, "until": over["until"]}], {"revision": revision}, 400),
            ):
                for dry in ("true", "false"):
                    answer = await put("/egress", json={"rules": rules, **more}, params={"dry_run": dry})
                    pattern, until = rules[0]["pattern"], rules[0]["until"]
                    assert (answer.status_code, answer.json()["error"]) == (
                        status,
                        f"rules[0]: {pattern!r}: until {until}: that is over",
                    )
            stale = await put("/egress", json={"rules": [over], "revision": "of another policy"})
            assert (stale.status_code, stale.json()["error"]) == (
                409,
                "the policy has changed since it was read; read it again",
            )
            # What a client reads then has no such rule, and goes through.
            found = (await lab.client.get("/egress")).json()
            assert found["rules"] == []
            # It is named as it is once the rule has gone from the store: that may be before the request comes.
            assert found["revision"] == empty
            answer = await put("/egress", json={"rules": [], "revision": found["revision"]})
            assert answer.status_code == 200
            far = {**over, "until": "2999-01-01T00:00:00Z"}
            revision = (await lab.client.get("/egress")).json()["revision"]
            assert (
                await lab.client.put("/egress", json={"rules": [far], "revision": revision})
            ).status_code == 400

    run(work())


def test_what_is_left_of_a_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The list says how long a rule stays by the clock that ends it first: a wall clock set back by a day adds nothing."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.client.post("/egress/allow", json={"domain": "a.test", "for": 6000})
            now = times.now
            monkeypatch.setattr(
                "irons_local.clocks.times", SimpleNamespace(now=lambda: now() - 86_400 * SECOND)
            )
            (rule,) = (await lab.client.get("/egress")).json()["rules"]
            assert 0 < rule["left"] <= 6000

    run(work())
