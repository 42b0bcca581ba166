"""What a change of rules would do, said while it is typed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons.host import PluginHost
from irons.testing import FakeApi
from irons.text import rfc3339
from irons_policy.decide import decide
from irons_policy.event import Event
from irons_policy.policy import Policy
from irons_policy.rules import Rule, make_rule
from irons_repl.forecast.effects import effects
from irons_repl.forecast.forecast_line import Clause, forecast_line
from irons_repl.forecast.ground import Ground, RuleKey, places_of
from irons_repl.forecast.typed_change import TypedChange, typed_change
from irons_repl.status.remedies import Remedies, Remedy, TypedLine, still_open
from tests.repl.terminal import Terminal

TREE = PluginHost(env={"IRONS_PLUGINS": ""}).tree
EVENTS = [
    Event(sandbox="alpha", host="a.index.example", port=443, count=40),
    Event(sandbox="alpha", host="b.index.example", port=443, count=6),
    Event(sandbox="alpha", host="b.index.example", port=22),
    Event(sandbox="alpha", host="evil.index.example", port=80),
    Event(sandbox="alpha", host="open.example", port=443, count=2),
    Event(sandbox="alpha", host="203.0.113.7", port=443),
    Event(sandbox="alpha", host="dns.example", port=53, protocol="udp"),
    Event(sandbox="alpha", host="asked.example", port=443, protocol="ask", cause="asked"),
    Event(sandbox="alpha", host="*", count=900),
    Event(sandbox="alpha", host="capped.example", port=443, cause="cap"),
]


def ground(mode: str = "deny", rules: Sequence[Rule] = (), sandbox: str | None = "alpha") -> Ground:
    """What alpha tried, under these rules and two of its own."""
    own = [
        make_rule("evil.index.example", "deny", scope="sandbox"),
        make_rule("open.example", "allow", scope="sandbox"),
    ]
    every = (*own, *rules)
    keys = frozenset(RuleKey(rule.scope, rule.pattern.text) for rule in every)
    scope = "sandbox" if sandbox else "account"
    mine = frozenset(key for key in keys if key.scope == scope)
    return Ground(sandbox, places_of(EVENTS, {"alpha": every}), "7 days", mode, "warn", frozenset(), mine)


def test_other_words_for_a_mode_have_its_forecast() -> None:
    """`enforce` is judged as `deny` is, and `audit` as `warn`."""
    for word, mode in (("enforce", "deny"), ("audit", "warn"), ("deny", "deny")):
        assert typed_change(f"egress mode {word}", TREE, "alpha") == TypedChange("mode", (mode,), "alpha")


def test_what_warn_let_pass_counts_also_where_no_server_was_reached() -> None:
    """Mode deny would refuse it by the rules; what a rule allowed and was not reached is not the rules' own."""
    passed = Event(sandbox="alpha", host="new.example", port=443, verdict="warn", cause="unresolved")
    allowed = Event(sandbox="alpha", host="old.example", port=443, verdict="allowed", cause="unreached")
    assert [place.host for place in places_of((passed, allowed), {})] == ["new.example"]


def said(line: str, on: Ground) -> str:
    """The forecast of a line as one text."""
    change = typed_change(line, TREE, "alpha")
    assert change is not None
    return "".join(text for _, text in forecast_line(effects(change, on), 300)).strip()


@pytest.mark.parametrize(
    ("line", "mode", "text"),
    [
        (
            "egress allow '*.index.example'",
            "deny",
            (
                "covers 3 of alpha's 5 hosts, 47 connections in 7 days; opens 2 that mode deny refuses; "
                "1 stays denied by evil.index.example"
            ),
        ),
        (
            "egress allow evil.index.example",
            "warn",
            "covers 1 of alpha's 5 hosts, 1 connection in 7 days; opens 1 that you denied",
        ),
        (
            "egress allow b.index.example evil.index.example",
            "warn",
            "covers 2 of alpha's 5 hosts, 7 connections in 7 days; opens 1 that you denied, opens 1 that no rule allows",
        ),
        ("egress allow nowhere.example", "deny", "covers none of alpha's 5 hosts in 7 days"),
        (
            "egress allow open.example",
            "deny",
            "covers 1 of alpha's 5 hosts, 2 connections in 7 days; all of it is allowed already",
        ),
        (
            "egress allow b.index.example:22",
            "deny",
            "covers 1 of alpha's 5 hosts, 1 connection in 7 days; opens 1 that mode deny refuses",
        ),
        (
            "egress allow 203.0.113.0/24",
            "deny",
            "covers 1 of alpha's 5 hosts, 1 connection in 7 days; opens 1 that mode deny refuses",
        ),
        (
            "egress deny '*'",
            "warn",
            "covers 5 of alpha's 5 hosts, 50 connections in 7 days; closes 1 that rules allow; mode warn blocks nothing yet",
        ),
        (
            "egress deny a.index.example",
            "deny",
            "covers 1 of alpha's 5 hosts, 40 connections in 7 days; all of it is refused already",
        ),
        (
            "egress remove open.example",
            "deny",
            "covers 1 of alpha's 5 hosts, 2 connections in 7 days; leaves 1 without a rule",
        ),
        (
            "egress remove evil.index.example",
            "deny",
            "covers 1 of alpha's 5 hosts, 1 connection in 7 days; leaves 1 to the mode",
        ),
        ("egress remove other.example", "deny", "alpha has no rule other.example"),
        (
            "egress mode deny",
            "warn",
            "would have refused 49 in 7 days: a.index.example, b.index.example, evil.index.example, 203.0.113.7",
        ),
        (
            "egress mode ask",
            "warn",
            "would have refused 49 in 7 days: a.index.example, b.index.example, evil.index.example, 203.0.113.7",
        ),
        (
            "egress deny a.index.example",
            "ask",
            "covers 1 of alpha's 5 hosts, 40 connections in 7 days; all of it is refused already",
        ),
        (
            "egress mode warn",
            "deny",
            (
                "blocks nothing: 49 would pass without a rule in 7 days: a.index.example, b.index.example, "
                "evil.index.example, 203.0.113.7"
            ),
        ),
    ],
)
def test_a_change_is_judged_on_what_was_tried(line: str, mode: str, text: str) -> None:
    """Each command says what it covers, what it opens or closes, and what goes on to be decided otherwise."""
    assert said(line, ground(mode)) == text


@pytest.mark.parametrize(
    ("line", "change"),
    [
        ("egress allow a.example", TypedChange("allow", ("a.example",), "box")),
        ("irons egress deny a b --note 'x y' --all", TypedChange("deny", ("a", "b"), None)),
        ("list; egress remove 'a b", TypedChange("remove", ("a b",), "box")),
        ("egress allow --sandbox other x.example", TypedChange("allow", ("x.example",), "other")),
        ("egress allow --sandbox=other --private 10.0.0.1 x", TypedChange("allow", ("x",), "other")),
        ("egress mode ", TypedChange("mode", (), "box")),
        ("egress list", None),
        ("egress preset allow pypi", None),
        ("egress", None),
        ("!egress allow x", None),
        ("list | egress allow x", None),
        ("box: egress allow x", None),
        ("", None),
    ],
)
def test_the_line_is_read_as_it_is_typed(line: str, change: TypedChange | None) -> None:
    """Only a change counts, of the scope that it is for."""
    assert typed_change(line, TREE, "box") == change


PATTERNS = st.sampled_from(
    [
        "a.example",
        "b.a.example",
        "*.a.example",
        "*.b.a.example",
        "*",
        "*:*",
        "a.example:22",
        "10.0.0.0/8",
        "10.0.0.1",
    ]
)
RULES = st.lists(
    st.builds(
        make_rule, PATTERNS, st.sampled_from(["allow", "deny"]), scope=st.sampled_from(["account", "sandbox"])
    ),
    max_size=6,
    unique_by=lambda rule: (rule.scope, rule.pattern.text),
)
TRIED = st.lists(
    st.builds(
        Event,
        sandbox=st.just("alpha"),
        host=st.sampled_from(
            ["a.example", "b.a.example", "c.b.a.example", "z.example", "10.0.0.1", "192.0.2.1"]
        ),
        port=st.sampled_from([443, 80, 22]),
    ),
    min_size=1,
    max_size=8,
)


@given(RULES, TRIED, PATTERNS, st.sampled_from(["allow", "deny", "remove"]))
def test_a_forecast_is_what_the_rules_say_after_the_change(
    rules: list[Rule], events: list[Event], pattern: str, verb: str
) -> None:
    """What is said to be opened or closed is what the gateway's own decision would say with the changed rules."""
    keys = frozenset(RuleKey(rule.scope, rule.pattern.text) for rule in rules if rule.scope == "sandbox")
    on = Ground("alpha", places_of(events, {"alpha": rules}), "7 days", "deny", "deny", frozenset(), keys)
    clauses = effects(TypedChange(verb, (pattern,), "alpha"), on)  # type: ignore[arg-type]
    text = make_rule(pattern, "allow").pattern.text
    kept = [rule for rule in rules if not (rule.scope == "sandbox" and rule.pattern.text == text)]
    if verb == "remove" and len(kept) == len(rules):
        assert [clause.text for clause in clauses] == [f"alpha has no rule {text}"]
        return
    after = kept if verb == "remove" else [*kept, make_rule(pattern, verb, scope="sandbox")]  # type: ignore[arg-type]
    opened: set[str] = set()
    closed: set[str] = set()
    for host, port in {(event.host, event.port or 443) for event in events}:
        old, new = (decide(Policy("deny", tuple(each)), host, port).allowed for each in (rules, after))
        if new != old:
            (opened if new else closed).add(host)
    numbers = [int(clause.text.split()[1]) for clause in clauses if clause.text.startswith("opens ")]
    assert max(numbers, default=0) <= len(opened) <= sum(numbers)
    fewer = [clause for clause in clauses if clause.text.startswith(("closes ", "leaves ")) and clause.style]
    assert sum(int(clause.text.split()[1]) for clause in fewer) == len(closed)


@given(
    st.integers(0, 300),
    st.lists(st.builds(Clause, st.text(max_size=30), st.just(""), st.integers(0, 4)), max_size=6),
)
def test_a_forecast_fits_into_its_line(width: int, clauses: list[Clause]) -> None:
    """The line is never longer than the terminal is wide."""
    assert sum(len(text) for _, text in forecast_line(clauses, width, "vi insert", "10:00:00")) <= width


def test_where_there_is_no_room_what_it_opens_is_kept() -> None:
    """In few columns the numbers go first, and what is opened last."""
    change = TypedChange("allow", ("evil.index.example",), "alpha")
    line = "".join(text for _, text in forecast_line(effects(change, ground()), 40))
    assert line == " covers 1; opens 1 that you denied"


def test_what_is_cut_has_a_mark() -> None:
    """A forecast that is longer than the terminal is wide ends in one; one that fits has none."""
    clauses = effects(TypedChange("mode", ("warn",), "alpha"), ground("deny"))
    narrow, wide = ("".join(text for _, text in forecast_line(clauses, width)) for width in (30, 300))
    assert narrow == f"{wide[:29]}…"
    assert "…" not in wide


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80])
def test_no_width_hides_that_something_is_opened(width: int) -> None:
    """How many hosts an allow rule opens that the mode refuses now is there in few columns too; what they are is left out."""
    change = TypedChange("allow", ("*.index.example",), "alpha")
    whole = forecast_line(effects(change, ground("deny")), 200)
    assert "opens 2 that mode deny refuses" in "".join(text for _, text in whole)
    line = "".join(text for _, text in forecast_line(effects(change, ground("deny")), width))
    assert "opens 2" in line


def test_a_mode_of_all_spares_those_with_their_own() -> None:
    """Sandboxes that do not follow are not counted; before anything was tried that is what is said."""
    on = Ground(None, places_of(EVENTS, {}), "2 hours", "warn", "warn", frozenset({"alpha"}))
    (clause,) = effects(TypedChange("mode", ("deny",), None), on)
    assert clause.text == "would have refused none of 0 connections in 2 hours"
    (clause,) = effects(TypedChange("mode", ("deny",), None), Ground(None, (), "7 days"))
    assert clause.text == "all sandboxes tried nothing in 7 days"


def record(fake: FakeApi, host: str, sandbox: str, **more: object) -> None:
    """Put an event of an hour ago into the log."""
    fake.record(host, sandbox, timestamp=rfc3339(datetime.now(UTC) - timedelta(hours=1)), **more)  # type: ignore[arg-type]


def test_the_line_below_says_what_a_change_would_do(prompt: Terminal, fake: FakeApi) -> None:
    """While a change is typed the forecast is there, of the scope that is meant; after the line the usual one is back."""
    for number in range(3):
        record(fake, f"h{number}.index.example", "agent-1", verdict="warn", count=5)
    record(fake, "other.example", "agent-2", verdict="warn")
    prompt.send("use agent-1\r")
    prompt.until("agent-1 irons>")
    prompt.send("egress allow '*.index.example'")
    prompt.until(r"covers 3 of agent-1's 3 hosts, 15 connections in 7 days; opens 3 that no rule allows")
    prompt.send(" --all")
    prompt.until(r"covers 3 of 4 hosts, 15 connections in 7 days; opens 3 that no rule allows")
    prompt.send("\x15egress mode deny")
    prompt.until(r"would have refused 15 in 7 days: h\d\.index\.example")
    before = len(fake.lines())
    prompt.send("\x15egress allow other.example")
    prompt.until("covers none of agent-1's 3 hosts in 7 days")
    asked = [line for line in fake.lines()[before:] if "audit/egress?" in line and "limit=5000" in line]
    assert len(asked) <= 1, "a key asks for nothing"
    prompt.send("\x15")
    prompt.until("agent-1: mode warn")


def test_a_server_without_a_log_by_time_gets_no_forecast(
    terminal: Callable[..., Terminal], fake: FakeApi
) -> None:
    """There the line below stays what it is."""
    fake.extensions = ()
    screen = terminal()
    screen.until("0 denied")
    screen.send("egress allow x.example")
    screen.until(lambda: screen.line_of_cursor().endswith("x.example"))
    screen.until("0 denied")


def test_a_refusal_suggests_its_command(prompt: Terminal, fake: FakeApi) -> None:
    """The grey text is the command in the narrow scope; the right arrow takes it, and then it is suggested no more."""
    prompt.send("use agent-1\r")
    prompt.until("agent-1 irons>")
    prompt.until("0 denied")
    fake.record("new.example", "agent-1", allowed=False, verdict="blocked", port=8080)
    prompt.until(lambda: prompt.line_of_cursor() == "agent-1 irons> egress allow new.example:8080")
    prompt.send("\x1b[C\r")
    prompt.until(
        lambda: any(rule["pattern"].startswith("new.example") for rule in fake.sandboxes["agent-1"].rules)
    )
    prompt.until(lambda: prompt.line_of_cursor() == "agent-1 irons>")
    prompt.send("use --none\r")
    prompt.until(lambda: prompt.line_of_cursor() == "irons>")
    fake.record("next.example", "agent-2", allowed=False, verdict="blocked")
    prompt.until("irons> egress allow next.example --sandbox agent-2")
    prompt.send("list -q\r")
    prompt.until(r"\nagent-2\n")
    prompt.until(lambda: prompt.line_of_cursor() == "irons>")
    prompt.send("egress al")
    prompt.until("egress allow next.example --sandbox agent-2")


def test_remedies_are_for_what_a_rule_can_open() -> None:
    """Limits, deny rules, other protocols and folded events have none; the floor's has the pin."""
    remedies = Remedies()
    for event in (
        Event(sandbox="a", host="one.example", port=443),
        Event(sandbox="b", host="two.example", port=22, cause="uncovered"),
        Event(sandbox="a", host="pin.example", port=5432, cause="floor", address="10.0.0.5"),
        Event(sandbox="a", host="denied.example", port=443, rule="denied.example", cause="rule"),
        Event(sandbox="a", host="capped.example", port=443, cause="cap"),
        Event(sandbox="a", host="dns.example", port=53, protocol="udp"),
        Event(sandbox="a", host="*"),
        Event(sandbox="a", host="one.example", port=443),
    ):
        remedies.add(event)
    assert [remedy.text("a") for remedy in remedies.of("a")] == [
        "egress allow one.example",
        "egress allow pin.example:5432 --private 10.0.0.5",
    ]
    assert [remedy.text(None) for remedy in remedies.of(None)] == [
        "egress allow one.example --sandbox a",
        "egress allow pin.example:5432 --private 10.0.0.5 --sandbox a",
        "egress allow two.example:22 --sandbox b",
    ]
    assert [remedy.text("b") for remedy in remedies.of("b", "a")][-1] == "egress allow two.example:22"


@pytest.mark.parametrize(
    ("line", "used", "seconds", "stays"),
    [
        ("egress allow x", "a", 1, False),
        ("egress allow x", None, 1, False),
        ("egress allow x --all", "b", 1, False),
        ("egress allow x --sandbox a", "b", 1, False),
        ("egress allow x", "b", 1, True),
        ("egress allow x --sandbox b", None, 1, True),
        ("egress allow x", "a", -1, True),
        ("list", "a", 1, True),
    ],
)
def test_a_remedy_stays_until_it_is_typed(line: str, used: str | None, seconds: int, stays: bool) -> None:
    """A line counts in its scope alone, and for refusals that came before it."""
    at = datetime(2026, 1, 1, tzinfo=UTC)
    remedy = Remedy("a", "egress allow x --sandbox a", at)
    typed = TypedLine(line, used, at + timedelta(seconds=seconds))
    assert (still_open([remedy], [typed]) == [remedy]) == stays


def test_what_is_refused_again_is_suggested_again(prompt: Terminal, fake: FakeApi) -> None:
    """An allow for another sandbox hides nothing, and one that was taken hides nothing that was refused after it."""
    prompt.send("use agent-2\r")
    prompt.until("agent-2 irons>")
    prompt.send("egress allow new.example\r")
    prompt.until("new.example is allowed for agent-2")
    prompt.send("use agent-1\r")
    prompt.until("agent-1 irons>")
    prompt.until("0 denied")
    for _ in range(2):
        prompt.until(lambda: prompt.line_of_cursor() == "agent-1 irons>")
        now = rfc3339(datetime.now(UTC))
        fake.record("new.example", "agent-1", allowed=False, verdict="blocked", timestamp=now)
        prompt.until(lambda: prompt.line_of_cursor() == "agent-1 irons> egress allow new.example")
        prompt.send("\x1b[C\r")
