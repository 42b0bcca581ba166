"""The live view's state: what keys do, in which order hosts stand, and when nothing is decided."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import count
from typing import Literal

import pytest

from irons.client.models.egress import ListedRule
from irons_policy.ends import RuleEnd
from irons_policy.event import Event
from irons_policy.rules import Rule, make_rule
from irons_repl.watch.model import Model
from irons_repl.watch.standing import KnownRules, Proposal
from irons_repl.watch.state import Apply, CloseView, RuleEdit, Undo, ViewState
from irons_repl.watch.view import picture

NOON = datetime(2026, 2, 19, 12, tzinfo=UTC)


class View:
    """A view of 80 columns and 24 rows, with a clock that goes only where a test says."""

    def __init__(self, sandbox: str | None = "alpha", *rules: Rule) -> None:
        self.state = ViewState(sandbox, standing=KnownRules(sandbox, rules))
        self.now = 100.0
        self._ids = count(1)
        self.draw()

    def event(self, host: str, verdict: str = "blocked", **more: object) -> Event:
        """An event of alpha."""
        cause = {"blocked": "uncovered", "warn": "uncovered"}.get(verdict, "rule")
        fields: dict[str, object] = {
            "sandbox": "alpha",
            "port": 443,
            "id": next(self._ids),
            "cause": cause,
            **more,
        }
        return Event(NOON, host=host, allowed=verdict != "blocked", verdict=verdict, **fields)  # type: ignore[arg-type]

    def take(self, *events: Event) -> View:
        """Have events come in."""
        self.state.model.take(events)
        return self

    def draw(self, width: int = 80, height: int = 24) -> list[str]:
        """Draw the picture, and return it as text."""
        lines = picture(self.state, width, height, self.now)
        return ["".join(text for _, text in line).rstrip() for line in lines]

    def calm(self, seconds: float = 2.0) -> View:
        """Let time pass, with pictures as the terminal gets them."""
        for _ in range(int(seconds / 0.25)):
            self.now += 0.25
            self.draw()
        return self

    def press(self, *keys: str) -> object:
        """Press keys, with a picture after each, and return the effect of the last one."""
        effect = None
        for key in keys:
            effect = self.state.press(key, self.now)
            self.draw()
        return effect

    @property
    def foot(self) -> str:
        """The last line."""
        return self.draw()[-1].strip()

    @property
    def hosts(self) -> list[str]:
        """The hosts in the picture."""
        return list(self.state.drawn.hosts)


def rule(
    pattern: str, kind: Literal["allow", "deny"], own: bool = True, private: tuple[str, ...] = ()
) -> Rule:
    """A rule of alpha, or of all sandboxes."""
    return make_rule(pattern, kind, scope="sandbox" if own else "account", private=private, broad=True)


def test_what_needs_a_decision_comes_first() -> None:
    """Hosts that were denied, or would be, and have no rule, stand above all others, the newest first; the rest by attempts."""
    view = View("alpha", rule("known.example", "deny"), rule("pypi.org", "allow", own=False))
    view.take(*(view.event("pypi.org", "allowed") for _ in range(3)))
    view.take(view.event("known.example", cause="rule"), view.event("old.example"))
    view.take(view.event("new.example", "warn"))
    view.calm()
    assert view.hosts == ["new.example", "old.example", "pypi.org", "known.example"]
    lines = view.draw()
    assert [line[2] for line in lines[2:6]] == ["?", "?", "+", "-"]
    assert "2 undecided · 1-4 of 4 hosts, undecided first" in lines[1]


def test_no_rule_can_decide_what_rules_do_not_decide() -> None:
    """UDP, caps and metadata addresses are not undecided: no key changes them, and a key says why."""
    view = View()
    view.take(
        view.event("dns.example", port=53, protocol="udp", cause="never"),
        view.event("many.example", cause="cap"),
        view.event("meta.example", cause="floor", address="169.254.169.254"),
    ).calm()
    assert not any(view.state.standing.undecided(host) for host in view.state.model.hosts.values())
    for key, text in (("a", "no rule opens"), ("down", ""), ("a", ""), ("down", ""), ("a", "")):
        view.press(key)
        assert view.state.question is None
        assert text in view.foot or not text


def test_what_warn_let_pass_needs_a_decision_also_where_no_server_was_reached() -> None:
    """A host that mode deny would refuse can be allowed, though its name was not resolved; one that a rule allows is decided."""
    view = View("alpha", rule("known.example", "allow"))
    view.take(
        view.event("new.example", "warn", cause="unresolved"),
        view.event("known.example", "allowed", cause="unresolved"),
    ).calm()
    standing, hosts = view.state.standing, view.state.model.hosts
    assert standing.undecided(hosts["new.example"])
    assert not standing.undecided(hosts["known.example"])
    view.press("a")
    view.calm(1)
    assert view.foot == "allow new.example for alpha? y/n"


def test_an_address_that_is_pinned_is_decided() -> None:
    """A host that leads to a private address needs a decision until a rule opens that address."""
    view = View("alpha", rule("db.example:5432", "allow"))
    refused = view.event("db.example", port=5432, cause="floor", address="10.0.0.5")
    host = view.take(refused).state.model.hosts["db.example:5432"]
    assert view.state.standing.undecided(host)
    assert not KnownRules("alpha", [rule("db.example:5432", "allow", private=("10.0.0.0/24",))]).undecided(
        host
    )


def test_every_host_can_be_chosen() -> None:
    """The list scrolls: with 200 hosts the last one is reached, and is in the picture."""
    view = View()
    view.take(*(view.event(f"h{number}.example") for number in range(200))).calm()
    assert view.hosts[0] == "h199.example"
    view.press("end")
    assert view.state.drawn.host == "h0.example"
    assert view.hosts[-1] == "h0.example"
    assert "of 200 hosts" in view.draw()[1]
    view.press("pageup", "up")
    shown = len(view.hosts)
    assert view.state.drawn.host == f"h{shown}.example"
    view.press("home")
    assert view.state.drawn.host == "h199.example"


def test_the_choice_stays_with_its_host() -> None:
    """Events change the order, never what is chosen; where it is filtered out or made room, a neighbour is chosen."""
    view = View()
    view.take(view.event("a.example"), view.event("b.example")).calm()
    view.press("down")
    assert view.state.drawn.host == "a.example"
    view.take(*(view.event(f"n{number}.example") for number in range(30))).calm()
    assert view.state.drawn.host == "a.example"
    assert "a.example" in view.hosts
    view.press("/", *"n1", "enter")
    assert view.state.drawn.host in view.hosts


def test_the_first_host_is_chosen_once_the_rules_are_known() -> None:
    """What needs a decision is on the screen, and chosen, also where the rules come later than the hosts; then the choice stays."""
    view = View("alpha", rule("*.known.example", "allow"))
    rules, view.state.standing = view.state.standing, KnownRules("alpha")
    view.take(
        view.event("new.example"), *(view.event(f"h{number}.known.example") for number in range(33))
    ).calm()
    assert view.hosts[0] == "h32.known.example"
    view.state.standing = rules
    lines = view.draw(80, 14)
    assert "1 undecided · 1-" in lines[1]
    assert lines[2].startswith("▸ ? new.example")
    # What has moved the choice is a change: no key decides at once.
    view.press("a")
    assert "has just changed" in view.foot
    view.take(view.event("newer.example")).calm()
    assert view.hosts[:2] == ["newer.example", "new.example"]
    assert view.state.drawn.host == "new.example"


def test_a_choice_from_before_the_rules_stays() -> None:
    """A host that a person has chosen stays chosen when the rules come."""
    view = View("alpha", rule("*.known.example", "allow"))
    rules, view.state.standing = view.state.standing, KnownRules("alpha")
    view.take(view.event("new.example"), view.event("a.known.example"), view.event("b.known.example")).calm()
    view.press("down")
    view.state.standing = rules
    view.calm()
    assert view.hosts == ["new.example", "a.known.example", "b.known.example"]
    assert view.state.drawn.host == "a.known.example"


def test_filter_and_sort() -> None:
    """`/` shows what has a text or a verdict, in both lists; Esc shows all again; `s` goes through the orders."""
    view = View()
    view.take(view.event("b.example", "allowed"), view.event("b.example", "allowed"), view.event("c.example"))
    view.take(view.event("a.example", "allowed")).calm()
    assert view.hosts == ["c.example", "b.example", "a.example"]
    view.press("/", *"would", "backspace", "escape", "/", *"denied", "enter")
    assert view.hosts == ["c.example"]
    assert [entry.event.host for entry in view.state.drawn.log] == ["c.example"]
    assert "/denied" in view.draw()[1]
    assert view.press("escape") is None
    orders = []
    for _ in range(4):
        view.press("s")
        orders.append(view.hosts)
    assert orders == [
        ["b.example", "c.example", "a.example"],
        ["a.example", "c.example", "b.example"],
        ["a.example", "b.example", "c.example"],
        ["c.example", "b.example", "a.example"],
    ]


def test_a_key_asks_and_yes_decides() -> None:
    """The foot line has the very rule and its scope; `y` has it made, any other key drops it."""
    view = View().take()
    view.take(view.event("evil.example", port=22)).calm()
    assert view.press("a") is None
    view.calm(1)
    assert view.foot == "allow evil.example:22 for alpha? y/n"
    assert view.press("y") == Apply(Proposal("allow", "evil.example:22", "alpha"))
    assert "evil.example:22 for alpha …" in view.foot
    assert view.press("a") is None
    assert "still on its way" in view.foot
    view.state.done("allowed for alpha: evil.example:22")
    assert view.foot == "allowed for alpha: evil.example:22"
    view.press("d")
    view.calm(1)
    assert view.foot == "deny evil.example:22 for alpha? y/n"
    for key in ("n", "escape", "enter", "x"):
        assert view.press(key) is None
        assert view.state.question is None
        assert view.foot == "Nothing was changed"
        view.press("d")
        view.calm(1)


def test_all_sandboxes_are_named_as_the_scope() -> None:
    """In a view of all sandboxes a rule is for all of them, and the question says that."""
    view = View(None)
    view.take(view.event("evil.example")).calm()
    view.press("a")
    view.calm(1)
    assert view.foot == "allow evil.example for all sandboxes? y/n"
    assert view.press("y") == Apply(Proposal("allow", "evil.example", None))


def test_the_pin_is_offered() -> None:
    """A host that leads to a private address is allowed with that address, besides those that its rule opens already."""
    view = View("alpha", rule("db.example:5432", "allow", private=("10.0.0.4",)))
    view.take(view.event("db.example", port=5432, cause="floor", address="10.0.0.5")).calm()
    view.press("a")
    view.calm(1)
    assert view.foot == "allow db.example:5432 --private 10.0.0.4 --private 10.0.0.5 for alpha? y/n"
    private = ("10.0.0.4", "10.0.0.5")
    assert view.press("y") == Apply(Proposal("allow", "db.example:5432", "alpha", private))


def test_a_private_address_itself_is_pinned() -> None:
    """A host that is a private address gets the pin that it needs, before the floor has refused it; what never opens gets none."""
    view = View("alpha")
    view.take(view.event("10.0.0.5", port=5432)).calm()
    assert view.state.standing.undecided(view.state.model.hosts["10.0.0.5:5432"])
    view.press("a")
    view.calm(1)
    assert view.foot == "allow 10.0.0.5:5432 --private 10.0.0.5 for alpha? y/n"
    shut = View("alpha").take(view.event("169.254.169.254", port=80)).calm()
    assert not shut.state.standing.undecided(shut.state.model.hosts["169.254.169.254"])
    shut.press("a")
    assert "no rule opens it" in shut.foot


def test_a_wider_deny_is_named() -> None:
    """An allow that a wider deny rule would win over is not asked: the command that removes the deny is shown."""
    view = View("alpha", rule("*.example", "deny", own=False), rule("a.test", "deny"))
    view.take(view.event("evil.example", cause="rule"), view.event("a.test", cause="rule")).calm()
    assert view.state.drawn.host == "evil.example"
    view.press("a")
    lines = " ".join(line.strip() for line in view.draw()[-3:])
    assert "*.example denies it (of all sandboxes): irons egress remove '*.example' --all" in lines
    view.press("down")
    view.press("a")
    assert view.state.question is not None, "a rule of the same pattern and scope is replaced"


def test_what_is_ruled_already_is_said() -> None:
    """A rule that is there is not asked for again."""
    view = View("alpha", rule("*.example", "allow"))
    view.take(view.event("a.example", "allowed")).calm()
    view.press("a")
    assert view.foot == "a.example is allowed already, by *.example (of alpha)"


def test_a_fast_yes_decides_nothing() -> None:
    """Within half a second of the question `y` does nothing, and the question stays; nor does pasted text answer it."""
    view = View()
    view.take(view.event("evil.example")).calm()
    view.press("a")
    assert "y/n" not in view.foot
    assert view.press("y", "y", "y") is None
    assert view.state.question is not None
    view.calm(0.75)
    assert "y/n" in view.foot
    view.state.paste("y")
    assert view.state.question is None
    assert view.press("y") is None


def test_a_yes_from_before_the_question_could_be_answered_decides_nothing() -> None:
    """Where the program stood still between the two, it reads the `y` late; what counts is what the picture said when it was typed."""
    view = View()
    view.take(view.event("evil.example")).calm()
    view.press("a")
    view.now += 60
    assert view.state.press("y", view.now) is None
    assert view.state.question is not None
    assert "y/n" in view.foot
    assert view.press("y") == Apply(Proposal("allow", "evil.example", "alpha"))


def test_typed_in_one_go_decides_nothing() -> None:
    """What a terminal without bracketed paste hands over at once is not an answer."""
    view = View()
    view.take(view.event("evil.example")).calm()
    effects = [view.state.press(key, view.now) for key in "jaydyayyuy"]
    assert not any(isinstance(effect, Apply | Undo) for effect in effects)


@pytest.mark.parametrize("key", ["a", "d"])
def test_keys_decide_nothing_while_the_list_changes(key: str) -> None:
    """Within half a second of the list changing by itself a key asks nothing; then it does."""
    view = View()
    view.take(view.event("a.example")).calm()
    view.take(view.event("b.example"))
    while "b.example" not in view.hosts:
        view.calm(0.25)
    view.press(key)
    assert "has just changed" in view.foot
    assert view.state.question is None
    view.calm(0.75)
    view.press(key)
    assert view.state.question is not None


def test_the_list_stays_while_a_question_is_open() -> None:
    """What comes in changes nothing on the list until the question is answered."""
    view = View()
    view.take(view.event("a.example")).calm()
    view.press("a")
    view.take(view.event("b.example")).calm()
    assert view.hosts == ["a.example"]
    assert view.press("y") == Apply(Proposal("allow", "a.example", "alpha"))


def test_a_key_acts_on_the_row_that_was_drawn() -> None:
    """Where the choice has moved and no picture has shown it yet, a key decides nothing."""
    view = View()
    view.take(view.event("a.example"), view.event("b.example")).calm()
    view.state.press("down", view.now)
    view.state.press("a", view.now)
    assert view.state.question is None
    view.draw()
    view.press("a")
    assert view.state.question is not None
    assert "a.example" in view.state.question.text


def test_the_log_scrolls_and_stands_still() -> None:
    """Tab chooses the log; moving in it holds it where it is, with its place; End goes on. Keys are about the chosen event."""
    view = View(None)
    view.take(*(view.event(f"h{number}.example", "allowed") for number in range(50))).calm()
    view.press("tab", "up", "up")
    assert view.state.drawn.entry is not None
    assert view.state.drawn.entry.event.host == "h47.example"
    before = view.state.drawn.log
    view.take(*(view.event(f"n{number}.example", "allowed") for number in range(50))).calm()
    assert view.state.drawn.log == before
    assert any("log 48/100 paused" in line for line in view.draw())
    view.press("d")
    view.calm(1)
    assert view.foot == "deny h47.example for all sandboxes? y/n"
    view.press("n", "home")
    assert view.state.drawn.log[0].event.host == "h0.example"
    view.press("G")
    assert view.state.drawn.log[-1].event.host == "n49.example"
    assert not view.state.paused


def test_an_event_as_a_whole() -> None:
    """Enter shows every field, what rules say now, and the command that would allow it; it follows what becomes of the event."""
    view = View("alpha", rule("*.example", "deny", own=False))
    event = view.event(
        "evil.example", rule="*.example", cause="rule", reason="rule *.example denies it", address="192.0.2.7"
    )
    view.take(event).calm()
    view.press("enter")
    text = "\n".join(view.draw())
    for line in (
        r"rule         *.example",
        "rule now     *.example denies it",
        "cause        rule",
        "reason       rule *.example denies it",
        "address      192.0.2.7",
        "verdict      denied",
    ):
        assert line in text
    fix = (
        "to allow it irons egress remove '*.example' --all && irons egress allow evil.example --sandbox alpha"
    )
    assert fix in " ".join(text.split())
    assert "count" not in text
    view.state.model.learn([event._replace(count=7)])
    assert any(line.split() == ["count", "7"] for line in view.draw())
    view.press("d")
    assert "denied already" in view.foot
    assert view.press("q") is None
    assert view.hosts == ["evil.example"]


@pytest.mark.parametrize(
    ("end", "told"),
    [
        (RuleEnd(), "a.example allows it, until its sandbox stops"),
        (RuleEnd(1_798_761_600_000_000), "a.example allows it, until 20"),
        (None, "a.example allows it\n"),
    ],
    ids=str,
)
def test_an_event_as_a_whole_says_when_its_rule_ends(end: RuleEnd | None, told: str) -> None:
    """A rule that ends by itself has its end next to it."""
    view = View("alpha", replace(rule("a.example", "allow"), until=end))
    view.take(view.event("a.example", "allowed")).calm()
    view.press("enter")
    assert f"  {told}" in "".join(f"{line.rstrip()}\n" for line in view.draw() if "rule now" in line)


def test_an_event_that_needs_a_pin_names_it() -> None:
    """What would allow a host on a private network is the rule with that address, for its sandbox."""
    view = View(None)
    view.take(view.event("db.example", port=5432, cause="floor", address="10.0.0.5")).calm()
    view.press("enter")
    text = " ".join(" ".join(view.draw()).split())
    assert "irons egress allow db.example:5432 --private 10.0.0.5 --sandbox alpha" in text


def test_a_long_reason_leaves_what_helps_on_the_screen() -> None:
    """In 40 columns the command that would allow an event is whole, however long its reason is."""
    view = View()
    view.take(view.event("evil.example", reason="why " * 120)).calm()
    view.press("enter")
    text = " ".join(" ".join(view.draw(40, 24)).split())
    assert "to allow it irons egress allow evil.example --sandbox alpha" in text


def test_the_keys_are_shown() -> None:
    """`?` shows the keys and the marks; any key closes it and does nothing else."""
    view = View()
    view.take(view.event("evil.example")).calm()
    view.press("?")
    assert any("undo the last change" in line for line in view.draw())
    assert view.press("a") is None
    assert view.state.question is None
    assert view.state.shown == "lists"
    assert isinstance(view.press("q"), CloseView)


def test_undo_asks_and_is_done_once() -> None:
    """`u` says what it puts back; what was undone, or can't be any more, is not offered again."""
    view = View()
    view.take(view.event("evil.example")).calm()
    view.press("u")
    assert "nothing to undo" in view.foot
    change = RuleEdit(Proposal("allow", "evil.example", "alpha"), None, ListedRule("allow", "evil.example"))
    view.state.done("allowed", change)
    view.press("u")
    view.calm(1)
    assert view.foot == "undo: remove allow evil.example for alpha? y/n"
    assert view.press("y") == Undo(change)
    view.state.undone("undone", gone=True)
    view.press("u")
    assert "nothing to undo" in view.foot


def test_a_held_picture_stays() -> None:
    """Space holds lists and totals while counting goes on; keys are about what is shown; space lets it go."""
    view = View()
    view.take(view.event("a.example")).calm()
    view.press(" ")
    view.take(view.event("b.example"), view.event("a.example")).calm()
    lines = view.draw()
    assert "paused" in lines[0]
    assert "1 denied" in lines[0]
    assert view.hosts == ["a.example"]
    view.press("a")
    assert view.state.question is not None
    view.press("n", " ")
    view.calm()
    assert view.hosts == ["b.example", "a.example"]
    assert "3 denied" in view.draw()[0]


@pytest.mark.parametrize("width", [20, 40, 80, 100, 200])
def test_a_question_is_never_cut(width: int) -> None:
    """The rule is read whole before it is answered, however narrow the terminal is."""
    view = View()
    name = "a-very-long-host-name.of-some.department.example.com"
    view.take(view.event(name, port=8443, cause="floor", address="10.0.0.5")).calm()
    view.press("a")
    view.now += 1
    asked = "".join(view.draw(width)).replace(" ", "")
    assert f"allow{name}:8443--private10.0.0.5foralpha?y/n" in asked


def test_a_copy_is_not_changed_by_what_comes() -> None:
    """A held model shares nothing that changes."""
    view = View()
    model = view.take(view.event("a.example")).state.model
    kept = model.copy()
    view.take(view.event("a.example"), view.event("b.example"))
    assert isinstance(kept, Model)
    assert (kept.totals.denied, list(kept.hosts), kept.hosts["a.example"].denied) == (1, ["a.example"], 1)
