"""Questions over HTTP: told by the gateway, followed by faces that count as watching, and answered once, by rules or for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.local.control.lab import KEY, ForwardLoop, Lab, control_plane, run, until

from irons.asking.screen import AskScreen
from irons.client.models.questions import QuestionPage
from irons_local.control.egress import watchers
from irons_local.control.egress.questions import QuestionDesk
from irons_local.control.egress.watchers import KEYS_WITHIN, LEASE, NOT_HELD
from irons_local.control.store import rules as rulebook
from irons_local.control.store import unasked
from irons_local.control.store.database import Store
from irons_local.ipc.messages import OpenQuestions, Watched, WatchQuestions
from irons_policy.patterns import read_never
from irons_policy.rules import make_rule

HOST = "new.example"


async def _json(lab: Lab, method: str, path: str, status: int = 200, **more: Any) -> Any:
    answer = await lab.client.request(method, path, **more)
    assert answer.status_code == status, answer.text
    return answer.json()


def told(
    host: str = HOST, port: int = 443, since: int = 1_700_000_000_000_000, **more: Any
) -> dict[str, Any]:
    """A question as a worker tells it."""
    given = {"host": host, "port": port, "protocol": "tls", "since": since, "last": since}
    return {**given, "count": 3, "waiting": 2, **more}


async def tell(lab: Lab, cell: str, *questions: Any, others: int = 0) -> Sequence[Any]:
    """Have the gateway say what is asked of a cell; gives what the API then lists."""
    before = await _json(lab, "GET", "/questions")
    notice = {"op": "questions", "cell": cell, "questions": list(questions), "others": others}
    await lab.gateway.link.send(notice)

    async def changed() -> bool:
        return bool((await _json(lab, "GET", "/questions"))["token"] != before["token"])

    await until(changed)
    found: Sequence[Any] = (await _json(lab, "GET", "/questions"))["questions"]
    return found


async def asking(lab: Lab) -> tuple[str, dict[str, Any]]:
    """A sandbox in mode ask with one open question."""
    cell = str((await lab.create("box", mode="ask"))["id"])
    (question,) = await tell(lab, cell, told())
    return cell, question


def test_what_the_gateway_says_is_listed(tmp_path: Path) -> None:
    """Sandbox, host, port and times; what is malformed is passed over, and what is gone is gone."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, question = await asking(lab)
            assert question.pop("id").startswith("q_")
            assert question == {
                "sandbox_name": "box",
                "sandbox_id": cell,
                "host": HOST,
                "port": 443,
                "protocol": "tls",
                "pattern": f"{HOST}:443",
                "since": "2023-11-14T22:13:20.000000Z",
                "last": "2023-11-14T22:13:20.000000Z",
                "count": 3,
                "waiting": 2,
                "requests": 0,
                "reason": "",
                "new": True,
                "refused": 0,
                "below": [],
                "below_count": 0,
                "marks": [],
            }
            odd = [
                None,
                {},
                told(host="\x1b[2J"),
                told(port=0),
                told(count="3"),
                told(since=-1),
                {**told(), "host": 7},
                told(requests="1"),
            ]
            assert [each["host"] for each in await tell(lab, cell, *odd, told("b.example"))] == ["b.example"]
            await tell(lab, cell, told(), others=412)
            (others,) = (await _json(lab, "GET", "/questions"))["others"]
            assert others == {"sandbox_name": "box", "sandbox_id": cell, "places": 412}
            assert await tell(lab, cell) == []

    run(work())


def test_no_answer_opens_what_is_never_asked_about(tmp_path: Path) -> None:
    """The gateway gets the patterns, also when they change; a rule that overlaps one is refused, a deny rule is not."""
    loop = ForwardLoop()

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, question = await asking(lab)
            assert "never" not in lab.policies[cell]
            config = lab.paths.state / "config.toml"
            config.write_text('[ask]\nnever = ["*.paste.new.example", "*:25"]\n')
            # The file is looked at from time to time.
            loop.skip(2)

            async def active() -> bool:
                return lab.policies[cell].get("never") == ["*.paste.new.example:*", "*:25"]

            await until(active)
            path = f"/questions/{question['id']}"
            for pattern in ("*:443", f"{HOST}:*"):
                wide = {"answer": "always", "pattern": pattern, "scope": "account"}
                refused = await _json(lab, "POST", path, 400, json=wide)
                assert "[ask] never has" in str(refused)
            assert not lab.policies[cell]["rules"]
            await _json(lab, "POST", path, json={"answer": "always"})
            (other,) = await tell(lab, cell, told("b.paste.new.example"))
            path = f"/questions/{other['id']}"
            await _json(lab, "POST", path, 400, json={"answer": "hour"})
            await _json(lab, "POST", path, json={"answer": "never"})
            assert {each["list"] for each in lab.policies[cell]["rules"]} == {"allow", "deny"}

    run(work(), loop)


def test_a_flood_of_one_sandbox_leaves_another_s_question_on_the_screen(tmp_path: Path) -> None:
    """It comes second, though it is the last one, also in a pane of 30 columns and 12 lines; the rest of the flood is a number."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            flooding = str((await lab.create("box", mode="ask"))["id"])
            cell = str((await lab.create("quiet", mode="ask"))["id"])
            since = 1_700_000_000_000_000
            flood = [told(f"h{number}.example", since=since + number) for number in range(32)]
            await tell(lab, flooding, *flood, others=9_968)
            found = await tell(lab, cell, told("mine.example", since=since + 10_000))
            assert [each["host"] for each in found[:3]] == ["h0.example", "mine.example", "h1.example"]
            assert len(found) == 33
            screen = AskScreen()
            screen.take(QuestionPage.of(await _json(lab, "GET", "/questions")))
            shown = screen.lines(30, 12)
            assert any("mine.example:443" in line for line in shown), shown

    run(work())


def test_a_worker_is_not_believed_of_others_cells(tmp_path: Path) -> None:
    """What it says of a cell that it does not serve is not shown, nor of a sandbox that is not there."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, _ = await asking(lab)
            notice = {"op": "questions", "cell": "sb_00000000000000ff", "questions": [told()], "others": 9}
            await lab.gateway.link.send(notice)
            assert [each["host"] for each in await tell(lab, cell, told("b.example"))] == ["b.example"]
            assert (await _json(lab, "GET", "/questions"))["others"] == []

    run(work())


@pytest.mark.parametrize(
    ("said", "listed", "until_"),
    [("always", "allow", None), ("stop", "allow", "stop"), ("never", "deny", None)],
)
def test_an_answer_that_is_a_rule(tmp_path: Path, said: str, listed: str, until_: str | None) -> None:
    """It is exactly HOST:PORT of that sandbox, active at the gateway, and in the change log with the question."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, question = await asking(lab)
            done = await _json(lab, "POST", f"/questions/{question['id']}", json={"answer": said})
            assert (done["rule"], done["waited"], done["sandbox_name"]) == (f"{HOST}:443", 2, "box")
            (rule,) = lab.policies[cell]["rules"]
            assert (rule["pattern"], rule["list"], rule["scope"]) == (f"{HOST}:443", listed, "sandbox")
            (shown,) = (await _json(lab, "GET", "/sandboxes/box/egress"))["rules"]
            assert shown.get("until") == until_
            changes = (await _json(lab, "GET", "/sandboxes/box/audit/changes"))["changes"]
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
            assert (await _json(lab, "GET", "/questions"))["questions"] == []

    run(work())


def test_an_hour_ends_by_itself(tmp_path: Path) -> None:
    """It is a rule with an end; for all sandboxes where that is asked for."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            _, question = await asking(lab)
            body = {"answer": "hour", "scope": "account"}
            await _json(lab, "POST", f"/questions/{question['id']}", json=body)
            (rule,) = (await _json(lab, "GET", "/egress"))["rules"]
            assert rule["pattern"] == f"{HOST}:443"
            assert rule["until"]

    run(work())


@pytest.mark.parametrize("said", ["once", "no"])
def test_an_answer_that_is_not_a_rule(tmp_path: Path, said: str) -> None:
    """The gateway gets it, no rule is written, and the change log has who said so."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, question = await asking(lab)
            done = await _json(lab, "POST", f"/questions/{question['id']}", json={"answer": said})
            assert done["rule"] is None
            assert "questions.reply" in lab.gateway.asked
            assert lab.policies[cell]["rules"] == []
            change = (await _json(lab, "GET", "/sandboxes/box/audit/changes"))["changes"][-1]
            assert (change["what"], change["subject"]) == ("question-answered", f"{HOST}:443")
            assert change["after"]["answer"] == said

    run(work())


def test_a_wider_pattern_must_cover_the_question(tmp_path: Path) -> None:
    """It is put as it was asked for; one that is beside the question is refused, and nothing is written."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = str((await lab.create("box", mode="ask"))["id"])
            (question,) = await tell(lab, cell, told("a.new.example.com"))
            path = f"/questions/{question['id']}"
            for pattern in ("*.other.com", "a.new.example.com:22", "..", "*.com"):
                await _json(lab, "POST", path, 400, json={"answer": "always", "pattern": pattern})
            assert lab.policies[cell]["rules"] == []
            done = await _json(lab, "POST", path, json={"answer": "always", "pattern": "*.new.example.com"})
            assert done["rule"] == "*.new.example.com"

    run(work())


def test_a_set_of_hosts_answers(tmp_path: Path) -> None:
    """Each gets a rule with the note, but one that has a rule keeps it; the log has the question's answer with all of them, in one change."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, question = await asking(lab)
            await _json(lab, "POST", "/sandboxes/box/egress/deny", json={"domain": "b.example"})
            path = f"/questions/{question['id']}"
            given = {"answer": "always", "patterns": [HOST, "b.example", "c.example"], "note": "preset new 1"}
            done = await _json(lab, "POST", path, json=given)
            assert (done["rule"], done["rules"], done["scope"]) == (HOST, [HOST, "c.example"], "sandbox")
            rules = (await _json(lab, "GET", "/sandboxes/box/egress"))["rules"]
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
            changes = (await _json(lab, "GET", "/audit/changes"))["changes"]
            (answered,) = [each for each in changes if each["what"] == "question-answered"]
            assert answered["after"]["rules"] == given["patterns"]
            together = [each for each in changes if each["request"] == answered["request"]]
            assert {each["subject"] for each in together} >= {HOST, "c.example"}
            assert (await _json(lab, "GET", "/questions"))["questions"] == []

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
                await _json(lab, "POST", path, 400, json=bad)
            assert (await _json(lab, "GET", "/sandboxes/box/egress"))["rules"] == []
            assert len((await _json(lab, "GET", "/questions"))["questions"]) == 1

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
                await _json(lab, "POST", path, 400, json=body)
            await _json(lab, "POST", "/questions/q_00000000", 404, json={"answer": "once"})
            (later,) = await tell(lab, cell, told(since=1_700_000_000_000_001))
            assert later["id"] != question["id"]
            await _json(lab, "POST", path, 404, json={"answer": "always"})
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


def test_a_wider_pattern_is_no_broader_than_a_rule(tmp_path: Path) -> None:
    """What `egress allow` refuses without `--broad` is refused here too; the answer says for whom it is."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = str((await lab.create("box", mode="ask"))["id"])
            (question,) = await tell(lab, cell, told("a.github.io"))
            path = f"/questions/{question['id']}"
            refused = await _json(lab, "POST", path, 400, json={"answer": "always", "pattern": "*.github.io"})
            assert "--broad" in str(refused)
            done = await _json(lab, "POST", path, json={"answer": "always", "scope": "account"})
            assert done["scope"] == "account"

    run(work())


def test_a_face_that_follows_watches(tmp_path: Path) -> None:
    """The gateway hears of it at once and again; without `watch`, or long after the last key, nobody is there."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await asking(lab)
            assert (await _json(lab, "GET", "/questions"))["watched"] is False
            idle = {"watch": "true", "idle": KEYS_WITHIN + 1}
            assert (await _json(lab, "GET", "/questions", params=idle))["watched"] is False
            assert "questions.watch" not in lab.gateway.asked
            found = await _json(lab, "GET", "/questions", params={"watch": "true", "idle": 1})
            assert found["watched"] is True

            async def heard() -> bool:
                return "questions.watch" in lab.gateway.asked

            await until(heard)

    run(work())


def test_following_waits_for_something_new(tmp_path: Path) -> None:
    """With the token of the last answer a request waits, and is answered when a question comes."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, _ = await asking(lab)
            token = (await _json(lab, "GET", "/questions"))["token"]
            waiting = asyncio.ensure_future(
                _json(lab, "GET", "/questions", params={"after": token, "wait": 60})
            )
            await tell(lab, cell, told("b.example"))
            assert [each["host"] for each in (await waiting)["questions"]] in ([HOST], ["b.example"])

    run(work())


def test_questions_go_with_their_gateway(tmp_path: Path) -> None:
    """A worker that was started again has none; what it is told next is what there is."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, _ = await asking(lab)
            lab.server.plane.questions.forget(cell)
            assert (await _json(lab, "GET", "/questions"))["questions"] == []

    run(work())


class Heard:
    """Workers that only listen."""

    def __init__(self) -> None:
        self.watched: list[tuple[float, float, int]] = []
        self.cells: list[Mapping[str, Watched]] = []

    def watch(self, told: WatchQuestions) -> None:
        """A person watches."""
        self.watched.append(told[:3])
        self.cells.append(told.cells or {})

    async def reply(self, cell: str, host: str, port: int, reply: str, since: int) -> int | None:
        """An answer."""
        raise AssertionError((cell, host, port, reply, since))


def test_a_notifier_is_asked_and_holds_only_where_it_says_so() -> None:
    """It alone is a lease without a wait; a person who watches, or its own `hold`, makes connections wait."""
    now = 100.0
    workers = Heard()
    nothing: Any = None
    questions = QuestionDesk(workers, nothing, nothing, 4.0, lambda: now, caught_up=nothing)
    questions.watchers.listen(2.0, hold=False)
    assert workers.watched == [(LEASE, NOT_HELD, 0)]
    assert not questions.watchers.watched()
    questions.watchers.watch(0.0, None)
    assert workers.watched[-1] == (LEASE, 4.0, 0)
    now += LEASE
    questions.watchers.listen(2.0, hold=True)
    assert workers.watched[-1] == (LEASE, 4.0, 0)
    assert questions.watchers.watched()
    now += 2.0 + LEASE
    assert not questions.watchers.watched()


def test_the_lease_is_as_long_as_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look extends it by its own time and a moment; a key is told apart from a look, and the clock alone ends it."""
    now = 100.0
    workers = Heard()
    nothing: Any = None
    questions = QuestionDesk(workers, nothing, nothing, 4.0, lambda: now, caught_up=nothing)
    assert not questions.watchers.watched()
    assert questions.watchers.watch(2.0, 5.0)
    assert workers.watched == [(LEASE, 4.0, 1)]
    now += 2.0
    # The same key, seven seconds ago by now.
    questions.watchers.watch(2.0, 7.0)
    assert len(workers.watched) == 1
    now += 2.0
    questions.watchers.watch(2.0, 0.0)
    assert workers.watched[-1] == (LEASE, 4.0, 2)
    now += 2.0 + LEASE
    assert not questions.watchers.watched()
    # One that stays needs no key.
    assert questions.watchers.watch(0.0, None)
    assert workers.watched[-1] == (LEASE, 4.0, 2)
    assert not questions.watchers.watch(2.0, KEYS_WITHIN + 0.1)
    monkeypatch.setattr(watchers, "RENEW", 0.001)

    async def renewed() -> None:
        nonlocal now
        running = asyncio.ensure_future(questions.run())
        told_before = len(workers.watched)
        while len(workers.watched) < told_before + 3:
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)
        now += LEASE
        told_before = -1
        while told_before != len(workers.watched):
            told_before = len(workers.watched)
            await asyncio.sleep(0.02)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    run(renewed())


def test_who_watches_one_sandbox_holds_no_other() -> None:
    """Its own lease and keys go to that cell, in one message with those for all; where others watch all, the longer one counts."""
    now = 100.0
    workers = Heard()
    nothing: Any = None
    watching = QuestionDesk(workers, nothing, nothing, 4.0, lambda: now, caught_up=nothing).watchers
    assert watching.watch(0.0, 1.0, ("sb_1",))
    assert workers.watched[-1][0] < 0.001
    assert workers.cells[-1] == {"sb_1": {"lease": LEASE, "hold": 4.0, "keys": 1}}
    assert watching.watched(("sb_1", "sb_2"))
    assert not watching.watched(("sb_2",))
    assert not watching.watched()
    assert not watching.watch(0.0, KEYS_WITHIN + 1, ("sb_2",))
    # A notifier that holds nothing leaves it held.
    watching.listen(2.0, hold=False)
    assert workers.watched[-1] == (LEASE, NOT_HELD, 0)
    assert workers.cells[-1]["sb_1"] == {"lease": LEASE, "hold": 4.0, "keys": 1}
    now += 2.0
    watching.watch(0.0, 0.0)
    assert workers.watched[-1] == (LEASE, 4.0, 1)
    assert workers.cells[-1]["sb_1"] == {"lease": LEASE, "hold": 4.0, "keys": 2}
    now += LEASE
    # No one watches it any more: as all, and with its keys, so that no key seems pressed.
    watching.listen(2.0, hold=False)
    assert workers.cells[-1]["sb_1"] == {"lease": LEASE, "hold": NOT_HELD, "keys": 2}
    assert not watching.watched(("sb_1",))


def test_what_is_remembered_of_sandboxes_that_ask_nothing_is_bounded() -> None:
    """However many others asked and ask no more, who follows one sandbox has the same token until that changes."""

    class Nothing:
        async def read(self, _: object) -> dict[str, Any]:
            return {}

    async def work() -> None:
        nothing: Any = Nothing()
        desk = QuestionDesk(Heard(), nothing, nothing, 4.0, caught_up=nothing)
        desk.heard(OpenQuestions("sb_mine", [told()]))

        async def token() -> int:
            return (await desk.page(None, 0, {"sb_mine"})).token

        seen = await token()
        for number in range(5_000):
            desk.heard(OpenQuestions(f"sb_{number}", [told()]))
            desk.heard(OpenQuestions(f"sb_{number}", []))
        assert await token() == seen
        assert len(desk._changed) < 2_500
        desk.heard(OpenQuestions("sb_mine", []))
        assert await token() > seen

    run(work())


def test_a_policy_says_what_no_answer_opens(tmp_path: Path) -> None:
    """`never` of a sandbox's policy or of all goes to the gateway; answers that overlap it are refused, and copies have it, too."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, question = await asking(lab)
            path = f"/questions/{question['id']}"
            own = await _json(lab, "GET", "/sandboxes/box/egress")
            body = {"rules": [], "never": [f"*.{HOST}"], "revision": own["revision"]}
            await _json(lab, "PUT", "/sandboxes/box/egress", json=body)
            await _json(lab, "PUT", "/egress", json={"rules": [], "never": ["*:25", f"*.{HOST}"]})
            assert lab.policies[cell]["never"] == [f"*.{HOST}:*", "*:25"]
            await _json(lab, "PUT", "/sandboxes/box/egress", 409, json=body)
            await _json(lab, "PUT", "/sandboxes/box/egress", 400, json={"rules": [], "never": ["a b"]})
            for pattern, scope in ((f"*.{HOST}", "sandbox"), (f"{HOST}:*", "account"), ("*:443", "account")):
                wide = {"answer": "always", "pattern": pattern, "scope": scope}
                assert (await lab.client.post(path, json=wide)).status_code == 400, pattern
            kept = {"rules": [{"pattern": "fine.example", "list": "allow"}]}
            await _json(lab, "PUT", "/sandboxes/box/egress", json=kept)
            shown = await _json(lab, "GET", "/sandboxes/box/egress")
            assert shown["never"] == [f"*.{HOST}:*"]
            await _json(lab, "PUT", "/egress", json={"rules": [], "never": []})
            assert lab.policies[cell]["never"] == [f"*.{HOST}:*"]
            await _json(lab, "POST", "/sandboxes/box/fork", 202, json={"names": ["copy"]})
            await lab.reaches("copy", "ready")
            copy = str((await lab.status("copy"))["id"])
            assert lab.policies[copy]["never"] == [f"*.{HOST}:*"]
            made = str((await lab.create("other", never=["*.other.example"]))["id"])
            assert lab.policies[made]["never"] == ["*.other.example:*"]
            await _json(lab, "POST", "/sandboxes/box/snapshots", 201, json={"name": "kept"})
            for name in ("copy", "other", "box"):
                await _json(lab, "PUT", f"/sandboxes/{name}/egress", json={"rules": [], "never": []})
            assert "never" not in lab.policies[cell]
            # The snapshot still has them, and answers nothing.
            wide = {"answer": "always", "pattern": "*:443", "scope": "account"}
            await _json(lab, "POST", path, json=wide)

    run(work())


def test_a_policy_has_so_many_patterns_that_no_answer_opens(tmp_path: Path) -> None:
    """500 are taken and more are refused, also where a copy gets those of its snapshot too."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            many = [f"n{number}.example" for number in range(501)]
            await lab.create()
            for path in ("/egress", "/sandboxes/box/egress"):
                await _json(lab, "PUT", path, 400, json={"rules": [], "never": many})
                await _json(lab, "PUT", path, json={"rules": [], "never": many[:500]})
            await _json(lab, "POST", "/sandboxes/box/snapshots", 201, json={"name": "kept"})
            copy = {"name": "copy", "public_key": KEY, "snapshot": "kept"}
            await _json(lab, "POST", "/sandboxes", 400, json={**copy, "never": many[500:]})
            await _json(lab, "POST", "/sandboxes", 202, json={**copy, "never": many[:1]})

    run(work())


def test_stored_patterns_are_parsed_once(tmp_path: Path) -> None:
    """A policy of many patterns that no answer opens costs no parsing at each look, nor does a rule of one of them."""
    store = Store(tmp_path / "irons.db")
    try:
        given = read_never(["*.paste.example", "*:25", "2001:db8::/32", "10.0.0.0/8"])
        store.write_now(lambda connection: unasked.replace(connection, "", given))
        first, second = (store.write_now(lambda connection: unasked.of(connection, "")) for _ in range(2))
        assert {*first} == {*given}
        assert all(one is other for one, other in zip(first, second, strict=True))
        rule = make_rule("*:25", "deny")
        store.write_now(lambda connection: rulebook.put(connection, "", rule))
        (put,) = store.write_now(lambda connection: rulebook.of(connection, ""))
        assert any(put.pattern is each for each in first)
    finally:
        store.close()


def test_no_answer_takes_a_denial_away(tmp_path: Path) -> None:
    """An answer with the pattern of a deny rule is refused, and the rule stays."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell, question = await asking(lab)
            await _json(lab, "POST", "/sandboxes/box/egress/deny", json={"domain": f"{HOST}:443"})
            # As where the gateway has not closed the question yet.
            answer = {"answer": "always"}
            assert (await lab.client.post(f"/questions/{question['id']}", json=answer)).status_code == 409
            assert [each["list"] for each in lab.policies[cell]["rules"]] == ["deny"]

    run(work())
