"""The live view on small screens: pages that do not fit scroll, and what is cut says so."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from irons_policy.event import Event
from irons_repl.watch.detail import about_event, about_keys
from irons_repl.watch.standing import KnownRules
from irons_repl.watch.state import ViewState
from irons_repl.watch.view import picture

NOON = datetime(2026, 2, 19, 12, tzinfo=UTC)
SIZES = [(80, 24), (40, 24), (40, 10), (30, 24), (20, 24), (20, 6), (80, 6)]


def event(host: str, **more: object) -> Event:
    """A refusal of which everything is known."""
    fields: dict[str, object] = {
        "sandbox": "alpha",
        "port": 443,
        "id": 7,
        "cause": "uncovered",
        "protocol": "tls",
        "mode": "deny",
        "address": "192.0.2.7",
        "reason": " ".join(f"why{number}" for number in range(50)),
        "count": 3,
        "bytes_in": 1,
        "duration_ms": 1500,
        "connection": "c_1",
        **more,
    }
    return Event(NOON, host=host, allowed=False, verdict="blocked", **fields)  # type: ignore[arg-type]


def view(*events: Event) -> ViewState:
    """A view that has shown these events for long."""
    state = ViewState("alpha", standing=KnownRules("alpha", []))
    state.model.take(events)
    draw(state, now=100.0)
    draw(state, now=102.0)
    return state


def draw(state: ViewState, width: int = 80, height: int = 24, now: float = 102.0) -> list[str]:
    """The picture as text."""
    return ["".join(text for _, text in line).rstrip() for line in picture(state, width, height, now)]


def press(state: ViewState, key: str, width: int, height: int) -> list[str]:
    """Press a key, which has no effect outside, and draw the picture."""
    assert state.press(key, 102.0) is None
    return draw(state, width, height)


def body(lines: list[str]) -> str:
    """The page of a picture, without blanks: titles and filter are above it, the keys below."""
    return "\n".join("".join(line.split()) for line in lines[1:-1])


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("opens", ["?", "enter"])
@pytest.mark.parametrize(
    ("down", "up"), [("down", "up"), ("j", "k"), ("pagedown", "pageup"), (" ", "pageup")]
)
def test_all_of_a_page_can_be_read(width: int, height: int, opens: str, down: str, up: str) -> None:
    """At any size each line of the keys, and of an event as a whole, comes on the screen, and the foot says how."""
    state = view(event("evil.example"))
    lines = press(state, opens, width, height)
    first, read = lines, [body(lines)]
    while "PgDn more" in lines[-1]:
        before = lines
        lines = press(state, down, width, height)
        assert lines != before, "the foot promised more"
        read.append(body(lines))
    shown = "".join(dict.fromkeys("\n".join(read).split("\n")))
    told = about_keys() if opens == "?" else about_event(event("evil.example"), state.standing)
    for title, text in told:
        assert "".join(title.split()) in shown
        for word in text.split():
            assert word in shown or len(word) > width - 16
    assert len(read) > 1 or (width, height) == (80, 24)
    while lines != first:
        lines = press(state, up, width, height)
    press(state, "q", width, height)
    assert state.shown == "lists"


def test_a_page_is_scrolled_by_what_is_seen() -> None:
    """PgDn and space go on where the screen ended, with its last line on top; past the end nothing moves or closes."""
    state = view(event("evil.example"))
    lines = press(state, "?", 40, 12)
    assert lines[-1] == " PgDn more · other keys close"
    assert press(state, "pagedown", 40, 12)[2] == lines[-2]
    state.press("pageup", 102.0)
    assert press(state, " ", 40, 12)[2] == lines[-2]
    assert state.held is None
    for _ in range(20):
        lines = press(state, "pagedown", 40, 12)
    assert "a rule allows the host, or denies it" in " ".join(" ".join(lines).split())
    assert lines[-1] == " PgUp more · other keys close"
    assert press(state, "down", 40, 12) == lines
    press(state, "x", 40, 12)
    assert state.shown == "lists"
    assert press(state, "?", 40, 12)[-1] == " PgDn more · other keys close", "it begins at its top again"


@pytest.mark.parametrize("key", ["a", "d", "u"])
def test_no_key_decides_from_the_page_of_keys(key: str) -> None:
    """However far it was scrolled, a key that would change a rule only closes it."""
    state = view(event("evil.example"))
    press(state, "?", 40, 12)
    press(state, "pagedown", 40, 12)
    press(state, key, 40, 12)
    assert (state.shown, state.question, state.said) == ("lists", None, "")


@pytest.mark.parametrize("key", ["down", "k", "pagedown", " "])
def test_a_page_that_fits_is_closed_by_any_key(key: str) -> None:
    """The foot says so, and it is true of the keys that scroll."""
    state = view(event("evil.example", reason=""))
    assert press(state, "?", 80, 40)[-1] == " any key closes"
    press(state, key, 80, 40)
    assert (state.shown, state.held) == ("lists", None)
    assert press(state, "enter", 80, 40)[-1] == " a allow  d deny  any other key closes"
    press(state, key, 80, 40)
    assert (state.shown, state.held) == ("lists", None)


def test_keys_that_scroll_wait_for_the_page() -> None:
    """One that came before the page was drawn does not close it."""
    state = view(event("evil.example"))
    state.press("enter", 102.0)
    state.press("pagedown", 102.0)
    assert state.shown == "event"
    assert draw(state, 40, 24)[-1] == " PgDn more · a allow  d deny"


TEAM = ("a-team-with-a-long-name-build-amd64", "a-team-with-a-long-name-build-arm64")


def log_of(sandbox: str | None, width: int, *events: Event) -> list[str]:
    """The log's lines for these events."""
    state = ViewState(sandbox, standing=KnownRules(sandbox, []))
    state.model.take(events)
    return [line for line in draw(state, width, 24) if line[1:9] == f"{NOON.astimezone():%H:%M:%S}"]


@pytest.mark.parametrize("width", [40, 60, 69, 70, 80, 120])
def test_the_log_of_all_sandboxes_names_them(width: int) -> None:
    """Long names are cut in their middle and differ; short ones are whole; a view of one sandbox has no use for them."""
    events = [event("evil.example", sandbox=name, reason="") for name in (*TEAM, "box-1")]
    names = [line.split()[2] for line in log_of(None, width, *events)]
    assert len(set(names)) == 3
    assert names[2] == "box-1"
    for name, whole in zip(names[:2], TEAM, strict=True):
        assert "…" in name
        assert (name[0], name[-3:]) == (whole[0], whole[-3:])
    assert all("box-1" not in line for line in log_of("box-1", width, events[2]))


@pytest.mark.parametrize("width", [20, 30, 40, 60, 80, 100])
@pytest.mark.parametrize("sandbox", [None, "alpha"])
def test_what_the_log_cuts_has_a_mark(width: int, sandbox: str | None) -> None:
    """A host keeps its end and its port; what follows it is cut on the right; a line that fits has no mark."""
    long = "www.bank.example.login.session.department.evil.example"
    lines = log_of(
        sandbox,
        width,
        event(long, sandbox="alpha"),
        event("a.b", sandbox="alpha", port=1, count=1, reason="x" * 90),
        event("a.b", sandbox="alpha", port=1, count=1, reason=""),
    )
    assert all(len(line) <= width for line in lines)
    assert lines[0].endswith("…")
    assert lines[1].endswith("…")
    if width >= 40:
        assert "e:443" in lines[0]
        assert "a.b:1" in lines[1]
        assert lines[2].endswith(" a.b:1")
        assert "…" not in lines[2]


def test_a_log_line_says_when_its_reason_does_not_fit() -> None:
    """In 40 columns the host is there whole where it can be, with a mark for the rest."""
    assert log_of("alpha", 40, event("evil.example", count=1)) == [
        f" {NOON.astimezone():%H:%M:%S} DENIED evil.example:443  why0…"
    ]
    assert log_of(None, 40, event("evil.example", count=1))[0].endswith(" alpha evil.example:443…")


@pytest.mark.parametrize("width", [20, 24, 30, 40])
def test_bars_are_not_cut(width: int) -> None:
    """They have as much room as there is, and no mark."""
    state = view(*(event(f"h{number}.example", count=9) for number in range(3)))
    hosts = [line for line in draw(state, width, 24) if line[2:4] == "? "]
    assert len(hosts) == 3
    assert all("…" not in line[-2:] and line.endswith("█") for line in hosts)
