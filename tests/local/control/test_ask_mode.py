"""Mode `ask` over HTTP: `deny` with a further field wherever a v0 client reads, and ended by what it writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.local.control.gateway_logs import Logs, open_record, verdict_record
from tests.local.control.lab import Lab, control_plane, run

ASK = {"mode": "deny", "ask": True}


async def _json(lab: Lab, method: str, path: str, **more: Any) -> Any:
    answer = await lab.client.request(method, path, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()


def _mode(answer: dict[str, Any]) -> dict[str, Any]:
    return {key: answer[key] for key in ("mode", "ask") if key in answer}


def test_a_mode_that_v0_does_not_know_is_read_as_deny(tmp_path: Path) -> None:
    """Each answer with a mode has `deny`, and says `ask` beside it; the gateway gets it the same way."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box", mode=None))["id"]
            done = await _json(lab, "PUT", "/egress/mode", json={"mode": "ask"})
            assert (_mode(done), done["changed"]) == (ASK, True)
            assert _mode(lab.policies[cell]) == ASK
            assert await _json(lab, "GET", "/egress/mode") == {**ASK, "differs": {}}
            of_box = await _json(lab, "GET", "/sandboxes/box/egress/mode")
            assert of_box == {**ASK, "source": "account"}
            assert _mode(await _json(lab, "GET", "/sandboxes/box/egress")) == ASK
            assert _mode(await _json(lab, "POST", "/egress/allow", json={"domain": "a.test"})) == ASK
            told = await _json(lab, "GET", "/egress/check?host=new.test&sandbox=box")
            assert (_mode(told), told["verdict"], told["cause"]) == (ASK, "blocked", "uncovered")

    run(work())


@pytest.mark.parametrize("mode", ["warn", "deny"])
def test_a_v0_client_ends_it(tmp_path: Path, mode: str) -> None:
    """What it sets is what applies afterwards, at the gateway too."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box", mode="ask"))["id"]
            assert _mode(lab.policies[cell]) == ASK
            await _json(lab, "PUT", "/sandboxes/box/egress/mode", json={"mode": mode})
            assert _mode(lab.policies[cell]) == {"mode": mode}
            assert await _json(lab, "GET", "/sandboxes/box/egress/mode") == {
                "mode": mode,
                "source": "sandbox",
            }

    run(work())


def test_sandboxes_that_differ_are_named_with_modes_of_v0(tmp_path: Path) -> None:
    """A mode of the account's own wire word is listed too where it asks."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("asks", mode="ask")
            await lab.create("warns", mode="warn")
            await _json(lab, "PUT", "/egress/mode", json={"mode": "deny"})
            told = await _json(lab, "GET", "/egress/mode")
            assert told["differs"] == {"asks": "deny", "warns": "warn"}
            assert told["asking"] == ["asks"]

    run(work())


def test_the_status_of_a_sandbox_has_words_of_v0(tmp_path: Path) -> None:
    """Its metadata says `deny`, and `ask` in a further key, whether the mode is its own or that of all sandboxes."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("asks", mode="ask")
            await lab.create("denies", mode="deny")
            await lab.create("follows", mode=None)
            await _json(lab, "PUT", "/egress/mode", json={"mode": "ask"})
            told = {name: (await lab.status(name))["metadata"] for name in ("asks", "denies", "follows")}
            assert {
                name: [found.get(key) for key in ("mode", "egress", "ask")] for name, found in told.items()
            } == {
                "asks": ["deny", "deny", "true"],
                "denies": ["deny", "deny", None],
                "follows": [None, "deny", "true"],
            }

    run(work())


def test_a_policy_may_carry_it(tmp_path: Path) -> None:
    """It is set with the rules; the revision tells `ask` from `deny`; a restart changes nothing."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("box", mode="deny")
            before = (await _json(lab, "GET", "/sandboxes/box/egress"))["revision"]
            await _json(lab, "PUT", "/sandboxes/box/egress", json={"mode": "ask", "rules": []})
            after = await _json(lab, "GET", "/sandboxes/box/egress")
            assert _mode(after) == ASK
            assert after["revision"] != before
        async with control_plane(tmp_path) as lab:
            assert _mode(await _json(lab, "GET", "/sandboxes/box/egress")) == ASK

    run(work())


def test_an_event_says_it(logs: Logs) -> None:
    """A v0 client shows `(mode: deny)`; an event of another mode has no further field."""
    logs.write(open_record(1), verdict_record(1, mode="ask"), open_record(2), verdict_record(2, mode="deny"))
    logs.take()
    assert [_mode(event) for event in logs.events()] == [ASK, {"mode": "deny"}]
