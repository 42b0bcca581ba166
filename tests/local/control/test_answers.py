"""Answers to questions over HTTP: by rules or for a while, each once, and what is refused."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from tests.local.control.asking import HOST, asking, in_json, tell, told
from tests.local.control.lab import control_plane, run


@pytest.mark.parametrize(
    ("said", "listed", "until_"),
    [("always", "allow", None), ("stop", "allow", "stop"), ("never", "deny", None)],
)
def test_an_answer_that_is_a_rule(tmp_path: Path, said: str, listed: str, until_: str | None) -> None:
    """It is exactly HOST:PORT of that sandbox, active at the gateway, and in the change log with the question."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, question = await asking(lab)
            done = await in_json(lab, "POST", f"/questions/{question['id']}", json={"answer": said})
            assert (done["rule"], done["waited"], done["sandbox_name"]) == (f"{HOST}:443", 2, "box")
            (rule,) = lab.policies[cell]["rules"]
            assert (rule["pattern"], rule["list"], rule["scope"]) == (f"{HOST}:443", listed, "sandbox")
            (shown,) = (await in_json(lab, "GET", "/sandboxes/box/egress"))["rules"]
            assert shown.get("until") == until_
            changes = (await in_json(lab, "GET", "/sandboxes/box/audit/changes"))["changes"]
            assert [each["what"] for each in changes[-2:]] == ["rule-added", "question-answered"]
            # Where the tests run in a terminal, it is named.
            changes[-1]["after"].pop("terminal", None)
            assert changes[-1]["after"] == {
                "answer": said,
                "question": question["id"],
                "waited": 2,
                "rule": f"{HOST}:443",
                "scope": "sandbox",
            }
            assert changes[-1]["by"] == "uid"
            assert (await in_json(lab, "GET", "/questions"))["questions"] == []

    run(work())


def test_an_hour_ends_by_itself(tmp_path: Path) -> None:
    """It is a rule with an end; for all sandboxes where that is asked for."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            _, question = await asking(lab)
            body = {"answer": "hour", "scope": "account"}
            await in_json(lab, "POST", f"/questions/{question['id']}", json=body)
            (rule,) = (await in_json(lab, "GET", "/egress"))["rules"]
            assert rule["pattern"] == f"{HOST}:443"
            assert rule["until"]

    run(work())


@pytest.mark.parametrize("said", ["once", "no"])
def test_an_answer_that_is_not_a_rule(tmp_path: Path, said: str) -> None:
    """The gateway gets it, no rule is written, and the change log has who said so."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, question = await asking(lab)
            done = await in_json(lab, "POST", f"/questions/{question['id']}", json={"answer": said})
            assert done["rule"] is None
            assert "questions.reply" in lab.gateway.asked
            assert lab.policies[cell]["rules"] == []
            change = (await in_json(lab, "GET", "/sandboxes/box/audit/changes"))["changes"][-1]
            assert (change["what"], change["subject"]) == ("question-answered", f"{HOST}:443")
            assert change["after"]["answer"] == said

    run(work())


@pytest.mark.parametrize("said", ["once", "no"])
def test_an_answer_waits_for_no_reader(tmp_path: Path, said: str) -> None:
    """What is read from the database at that time, such as a page of a long log, does not keep a connection that waits; the record is there."""
    goes_on = threading.Event()

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            _, question = await asking(lab)
            reading = asyncio.ensure_future(lab.store.read(lambda _: goes_on.wait(600)))
            try:
                answered = await in_json(lab, "POST", f"/questions/{question['id']}", json={"answer": said})
                assert answered["answer"] == said
                assert not reading.done()
            finally:
                goes_on.set()
                await reading
            change = (await in_json(lab, "GET", "/sandboxes/box/audit/changes"))["changes"][-1]
            assert (change["what"], change["after"]["answer"]) == ("question-answered", said)

    run(work())


def test_a_wider_pattern_must_cover_the_question(tmp_path: Path) -> None:
    """It is put as it was asked for; one that is beside the question is refused, and nothing is written."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = str((await lab.create("box", mode="ask"))["id"])
            (question,) = await tell(lab, cell, told("a.new.example.com"))
            path = f"/questions/{question['id']}"
            for pattern in ("*.other.com", "a.new.example.com:22", "..", "*.com"):
                await in_json(lab, "POST", path, 400, json={"answer": "always", "pattern": pattern})
            assert lab.policies[cell]["rules"] == []
            done = await in_json(lab, "POST", path, json={"answer": "always", "pattern": "*.new.example.com"})
            assert done["rule"] == "*.new.example.com"

    run(work())


def test_a_wider_pattern_is_no_broader_than_a_rule(tmp_path: Path) -> None:
    """What `egress allow` refuses without `--broad` is refused here too; the answer says for whom it is."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = str((await lab.create("box", mode="ask"))["id"])
            (question,) = await tell(lab, cell, told("a.github.io"))
            path = f"/questions/{question['id']}"
            refused = await in_json(
                lab, "POST", path, 400, json={"answer": "always", "pattern": "*.github.io"}
            )
            assert "--broad" in str(refused)
            done = await in_json(lab, "POST", path, json={"answer": "always", "scope": "account"})
            assert done["scope"] == "account"

    run(work())


def test_a_set_of_hosts_answers(tmp_path: Path) -> None:
    """Each gets a rule with the note, but one that has a rule keeps it; the log has the question's answer with all of them, in one change."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, question = await asking(lab)
            await in_json(lab, "POST", "/sandboxes/box/egress/deny", json={"domain": "b.example"})
            path = f"/questions/{question['id']}"
            given = {"answer": "always", "patterns": [HOST, "b.example", "c.example"], "note": "preset new 1"}
            done = await in_json(lab, "POST", path, json=given)
            assert (done["rule"], done["rules"], done["scope"]) == (HOST, [HOST, "c.example"], "sandbox")
            rules = (await in_json(lab, "GET", "/sandboxes/box/egress"))["rules"]
            assert {(each["pattern"], each["list"], each.get("note") or "") for each in rules} == {
                (HOST, "allow", "preset new 1"),
                ("b.example", "deny", ""),
                ("c.example", "allow", "preset new 1"),
            }
            assert {each["pattern"] for each in lab.policies[cell]["rules"]} == {
                HOST,
                "b.example",
                "c.example",
            }
            changes = (await in_json(lab, "GET", "/audit/changes"))["changes"]
            (answered,) = [each for each in changes if each["what"] == "question-answered"]
            assert answered["after"]["rules"] == given["patterns"]
            together = [each for each in changes if each["request"] == answered["request"]]
            assert {each["subject"] for each in together} >= {HOST, "c.example"}
            assert (await in_json(lab, "GET", "/questions"))["questions"] == []

    run(work())


def test_a_set_that_is_none_answers_nothing(tmp_path: Path) -> None:
    """It must cover the question, allow, and have no pattern next to it; otherwise the question stays open and no rule is put."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            _, question = await asking(lab)
            path = f"/questions/{question['id']}"
            for bad in (
                {"answer": "always", "patterns": ["other.example"]},
                {"answer": "always", "patterns": []},
                {"answer": "always", "patterns": [HOST, HOST]},
                {"answer": "always", "patterns": [HOST, "*.com"]},
                {"answer": "always", "patterns": [HOST], "pattern": HOST},
                {"answer": "never", "patterns": [HOST]},
                {"answer": "once", "patterns": [HOST]},
            ):
                await in_json(lab, "POST", path, 400, json=bad)
            assert (await in_json(lab, "GET", "/sandboxes/box/egress"))["rules"] == []
            assert len((await in_json(lab, "GET", "/questions"))["questions"]) == 1

    run(work())


def test_what_can_not_be_answered(tmp_path: Path) -> None:
    """A question that is over, words that are no answer, and answers that cannot be for all."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, question = await asking(lab)
            path = f"/questions/{question['id']}"
            for body in (
                {"answer": "yes"},
                {},
                {"answer": "once", "scope": "account"},
                {"answer": "no", "pattern": "*"},
                {"answer": "stop", "scope": "account"},
            ):
                await in_json(lab, "POST", path, 400, json=body)
            await in_json(lab, "POST", "/questions/q_00000000", 404, json={"answer": "once"})
            (later,) = await tell(lab, cell, told(since=1_700_000_000_000_001))
            assert later["id"] != question["id"]
            await in_json(lab, "POST", path, 404, json={"answer": "always"})
            assert lab.policies[cell]["rules"] == []

    run(work())


def test_the_first_of_two_answers_counts(tmp_path: Path) -> None:
    """While one is being carried out the question has gone for another; where the gateway does not know it any more, for all."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            _, question = await asking(lab)
            path = f"/questions/{question['id']}"
            answers = await asyncio.gather(
                *(lab.client.post(path, json={"answer": each}) for each in ("always", "never"))
            )
            assert sorted(each.status_code for each in answers) == [200, 404]

    run(work())


def test_no_answer_takes_a_denial_away(tmp_path: Path) -> None:
    """An answer with the pattern of a deny rule is refused, and the rule stays."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, question = await asking(lab)
            await in_json(lab, "POST", "/sandboxes/box/egress/deny", json={"domain": f"{HOST}:443"})
            # As where the gateway has not closed the question yet.
            answer = {"answer": "always"}
            assert (await lab.client.post(f"/questions/{question['id']}", json=answer)).status_code == 409
            assert [each["list"] for each in lab.policies[cell]["rules"]] == ["deny"]

    run(work())
