"""Rules that the live view makes and takes back, by the client."""

from __future__ import annotations

import io
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from irons.client.api import Api
from irons.errors import ApiError
from irons.host import PluginHost
from irons.terminal.streams import Streams
from irons.testing import EXTENSIONS, FakeApi, faults
from irons_repl.run.session import ShellSession
from irons_repl.watch.changing import apply, read_standing, undo
from irons_repl.watch.standing import Proposal
from irons_repl.watch.state import RuleEdit

EVIL = Proposal("allow", "evil.example", "agent-1")


@pytest.fixture
def api(env: dict[str, str]) -> Iterator[Api]:
    """A client of the fake API."""
    streams = Streams(io.StringIO(), io.StringIO(), io.StringIO(), env)
    session = ShellSession(PluginHost(env={"IRONS_PLUGINS": ""}), streams)
    client = session.api(session.settings())
    yield client
    client.close()


def changed(api: Api, proposal: Proposal) -> RuleEdit:
    """Make a rule, and return the change."""
    change = apply(api, proposal)[1]
    assert change is not None
    return change


def test_a_rule_is_made_and_taken_back(api: Api, fake: FakeApi) -> None:
    """The answer names the scope; undoing removes the rule, and no other one."""
    fake.sandboxes["agent-1"].rules.append({"pattern": "kept.example", "list": "allow", "note": "mine"})
    fake.cut = 2
    text, change = apply(api, EVIL)
    assert text == "allowed for agent-1: evil.example (2 live connections cut); u undoes it"
    assert change is not None
    assert change.back == "undo: remove allow evil.example for agent-1"
    undone = undo(api, change)
    assert (undone.text, undone.gone) == ("undone for agent-1: allow evil.example", True)
    rules = [(rule["pattern"], rule["list"], rule.get("note")) for rule in fake.sandboxes["agent-1"].rules]
    assert rules == [("kept.example", "allow", "mine")]
    assert len(fake.rules) == 2


def test_the_rule_from_before_comes_back_as_it_was(api: Api, fake: FakeApi) -> None:
    """A rule that was replaced returns with its list, private addresses, note and breadth."""
    before = {
        "pattern": "db.example:5432",
        "list": "allow",
        "private": ["10.0.0.5"],
        "note": "ours",
        "broad": True,
    }
    fake.rules.append(dict(before))
    change = changed(api, Proposal("deny", "db.example:5432"))
    assert change.back == "undo: allow db.example:5432 for all sandboxes, as before"
    assert fake.rules[-1]["list"] == "deny"
    undo(api, change)
    assert fake.rules[-1] == before


def test_what_was_there_already_is_no_change(api: Api, fake: FakeApi) -> None:
    """A rule that is as it was asked for leaves nothing to undo."""
    fake.rules.append({"pattern": "evil.test", "list": "allow", "private": [], "note": ""})
    text, change = apply(api, Proposal("allow", "evil.test"))
    assert change is None
    assert "undo" not in text


def test_a_pin_and_a_note_are_sent(api: Api, fake: FakeApi) -> None:
    """The request has the private addresses, and the note of the rule that it replaces."""
    apply(api, Proposal("allow", "db.example:5432", "agent-1", ("10.0.0.5",), "ours"))
    assert fake.sandboxes["agent-1"].rules == [
        {"pattern": "db.example:5432", "list": "allow", "private": ["10.0.0.5"], "note": "ours"}
    ]


@pytest.mark.parametrize(
    "other", [None, {"list": "deny"}, {"note": "theirs"}, {"created_at": "2026-02-20T00:00:00Z"}]
)
def test_a_rule_that_was_changed_since_is_left(api: Api, fake: FakeApi, other: dict[str, str] | None) -> None:
    """Where someone else has removed, changed or made the rule again, undoing changes nothing and reports that."""
    change = changed(api, EVIL)
    rules = fake.sandboxes["agent-1"].rules
    if other is None:
        rules.clear()
    else:
        rules[0].update(other)
    before = [dict(rule) for rule in rules]
    undone = undo(api, change)
    assert undone.text == "Not undone: evil.example has been changed since, for agent-1"
    assert undone.gone
    assert rules == before


def test_other_rules_may_change_in_between(api: Api, fake: FakeApi) -> None:
    """A rule that someone adds between reading and writing is kept: the policy is read again."""
    change = changed(api, EVIL)
    fake.fail(
        faults.error(409, "the policy has changed since it was read; read it again"), on="PUT /sandboxes"
    )
    fake.sandboxes["agent-1"].rules.append({"pattern": "theirs.example", "list": "deny"})
    undo(api, change)
    assert [rule["pattern"] for rule in fake.sandboxes["agent-1"].rules] == ["theirs.example"]
    assert sum(line.startswith("PUT") for line in fake.lines()) == 2


def test_a_rule_that_has_ended_does_not_come_back(api: Api, fake: FakeApi) -> None:
    """Where the rule from before ended by itself in the meantime, undoing reports when, after one try, and is done with."""
    end = datetime.now(UTC).replace(microsecond=0) - timedelta(minutes=5)
    before = {"pattern": "evil.test", "list": "allow", "until": end.isoformat().replace("+00:00", "Z")}
    fake.rules.append(dict(before))
    change = changed(api, Proposal("deny", "evil.test"))
    fake.fail(
        faults.error(400, f"rules[2]: 'evil.test': until {before['until']}: that is over"), on="PUT", times=9
    )
    undone = undo(api, change)
    here = end.astimezone()
    assert undone.text.removeprefix("Not undone: the rule that was there ended at ") in (
        f"{here:%H:%M}",
        f"{here:%Y-%m-%d %H:%M}",
    )
    assert undone.gone
    assert sum(line.startswith("PUT") for line in fake.lines()) == 1
    assert fake.rules[-1]["list"] == "deny"


@pytest.mark.parametrize("end", [{}, {"until": "stop"}, {"until": "2999-01-01T00:00:00Z"}])
def test_a_refusal_to_undo_is_reported_as_it_is(api: Api, fake: FakeApi, end: dict[str, str]) -> None:
    """Where the rule from before has not ended, what is said is the server's reason."""
    fake.sandboxes["agent-1"].rules.append({"pattern": "evil.test", "list": "allow", **end})
    change = changed(api, Proposal("deny", "evil.test", "agent-1"))
    fake.fail(faults.error(400, "too many rules for one policy; use wildcards"), on="PUT")
    with pytest.raises(ApiError, match="too many rules"):
        undo(api, change)


def test_mode_warn_is_said_of_a_deny(api: Api) -> None:
    """A deny rule blocks nothing yet where the mode is warn."""
    assert "mode warn blocks nothing yet" in apply(api, Proposal("deny", "evil.test"))[0]


def test_a_plain_server_is_allowed_and_undoes_nothing(api: Api, fake: FakeApi) -> None:
    """At a plain v0 server a rule for all sandboxes is made; it can't be taken back, and the answer says that."""
    fake.extensions = ()
    text, change = apply(api, Proposal("allow", "evil.test"))
    assert text.startswith("allowed for all sandboxes: evil.test")
    assert change is not None
    undone = undo(api, change)
    assert "can't put a rule back" in undone.text
    assert not undone.gone


def test_rules_that_stay_are_not_read_anew(api: Api, fake: FakeApi) -> None:
    """Where no revision has changed, what was read before is returned; a change in either scope is seen."""
    first = read_standing(api, "agent-1")
    assert read_standing(api, "agent-1", first) is first
    fake.sandboxes["agent-1"].rules.append({"pattern": "a.example", "list": "allow"})
    second = read_standing(api, "agent-1", first)
    assert second is not first
    fake.extensions = tuple(each for each in EXTENSIONS if each != "rules")
    fake.rules.append({"pattern": "b.example", "list": "deny"})
    assert read_standing(api, None, second) is not second
