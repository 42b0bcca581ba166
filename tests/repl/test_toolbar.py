"""The line below the prompt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_repl.status.rule_ends import told
from irons_repl.status.status_model import Outlook, backend_of, counted
from irons_repl.status.toolbar import toolbar

FULL = Outlook("local", "work", "deny", {}, {"ready": 3, "stopped": 1}, 2)
DIFFERS = {"alpha": "warn", "beta": "warn"}


def text(outlook: Outlook, width: int = 100) -> str:
    """The line without its styles."""
    return "".join(part for _, part in toolbar(outlook, width))


def style_of(outlook: Outlook, wanted: str) -> str:
    """The style of the part that holds a text."""
    return next(style for style, part in toolbar(outlook, 100) if wanted in part)


def test_it_tells_where_and_how_things_are() -> None:
    """Backend and profile, mode, sandboxes by state, and denials stand in one line."""
    assert text(FULL) == " local (work) │ mode deny │ 3 ready │ 1 stopped │ 2 denied this session"


def test_what_is_about_to_end_is_red() -> None:
    """A sandbox that is about to be stopped by time is named, and cleaned."""
    ending = Outlook("local", mode="deny", ending="alpha stops in 4 min")
    assert style_of(ending, "alpha stops in 4 min") == "class:bad"
    assert "\x1b" not in text(Outlook("local", ending="\x1b[2J stops in 4 min"))


def test_what_is_open_is_red() -> None:
    """What leaves things open is red, and nothing else: mode warn, and those sandboxes that have it as their own."""
    assert style_of(Outlook("local", mode="warn"), "mode warn (log only)") == "class:bad"
    assert style_of(Outlook("local", mode="deny"), "mode deny") == "class:good"
    assert style_of(Outlook("local", mode="ask"), "mode ask") == "class:good"
    mixed = Outlook("local", mode="deny", differs={"alpha": "warn"})
    assert text(mixed) == " local │ mode deny (alpha: warn)"
    assert (style_of(mixed, "mode deny"), style_of(mixed, "alpha: warn")) == ("class:good", "class:bad")
    closed = Outlook("local", mode="warn", differs={"alpha": "deny"})
    assert text(closed) == " local │ mode warn (log only) (alpha: deny)"
    assert (style_of(closed, "mode warn"), style_of(closed, "alpha: deny")) == ("class:bad", "class:good")


def test_with_a_sandbox_in_use_the_mode_is_its_own() -> None:
    """The mode that is shown is the one that applies to the sandbox in use; other modes are not shown with it."""
    assert text(Outlook("local", mode="deny", sandbox="alpha")) == " local │ alpha: mode deny"
    assert style_of(Outlook("local", mode="deny", sandbox="alpha"), "alpha") == "class:good"
    assert style_of(Outlook("local", mode="warn", sandbox="alpha"), "alpha: mode warn") == "class:bad"
    gone = Outlook("local", mode="", sandbox="gone")
    assert text(gone) == " local │ gone: no such sandbox"


def test_the_mode_of_another_sandbox_is_never_shown() -> None:
    """Until a look has seen the sandbox that was just chosen, no mode is shown for it, least of all the last one's."""
    seen = Outlook("local", mode="deny", sandbox="alpha", denied=0)
    assert text(seen.for_sandbox("alpha")) == text(seen)
    assert text(seen.for_sandbox("beta")) == " local │ 0 denied this session"
    assert text(seen.for_sandbox(None)) == " local │ 0 denied this session"
    assert text(Outlook("local", mode="warn", differs=DIFFERS).for_sandbox("alpha")) == " local"


@pytest.mark.parametrize(
    ("width", "shown"),
    [
        (40, " local │ mode deny (2 open)"),
        (80, " local │ mode deny (alpha: warn, beta: warn) │ 3 ready │ 1 stopped │ 2 denied"),
        (
            100,
            " local │ mode deny (alpha: warn, beta: warn) │ 3 ready │ 1 stopped │ 2 denied this session",
        ),
        (
            200,
            " local │ mode deny (alpha: warn, beta: warn) │ 3 ready │ 1 stopped │ 2 denied this session",
        ),
    ],
)
def test_exceptions_are_named_while_they_fit(width: int, shown: str) -> None:
    """Sandboxes with another mode are named where there is room, and counted where there is none."""
    line = text(Outlook("local", "", "deny", DIFFERS, {"ready": 3, "stopped": 1}, 2), width)
    assert line.startswith(shown)
    assert len(line) <= width
    many = {f"agent-{number}": "deny" for number in range(9)}
    assert "agent-4: deny and 4 more)" in text(Outlook("local", mode="warn", differs=many), 200)
    assert "(9 differ)" in text(Outlook("local", mode="warn", differs=many), 60)


def test_what_a_failed_look_left_is_stale() -> None:
    """Where the last look failed the line says of when its facts are; none of them is green, and what was open stays red."""
    down = Outlook("local", "", "deny", {}, {"ready": 1}, 0, "unreachable", sandbox="alpha", as_of="19:02:11")
    told = " local │ unreachable, as of 19:02:11 │ alpha: mode deny │ 1 ready │ 0 denied"
    assert (text(down), text(down, 80)) == (f"{told} this session", told)
    for part in ("alpha: mode deny", "1 ready", "0 denied"):
        assert style_of(down, part) == "class:stale"
    assert "as of 19:02:11 │ alpha: mode deny" in text(down, 60)
    opened = Outlook("local", mode="warn", trouble="not up", as_of="19:02:11")
    assert style_of(opened, "mode warn") == "class:bad"


def test_nothing_is_claimed_before_the_first_look() -> None:
    """What is not known is not shown."""
    assert text(Outlook()) == " …"
    assert text(Outlook("local", "default")) == " local"
    assert text(Outlook("local", states={})) == " local │ no sandboxes"


def test_trouble_is_shown() -> None:
    """A server that does not answer is shown as such."""
    assert style_of(Outlook("h", trouble="unreachable"), "unreachable") == "class:bad"


@given(
    st.integers(0, 120), st.text(max_size=60), st.dictionaries(st.text(max_size=30), st.integers(0, 10**6))
)
def test_it_fits_and_is_clean(width: int, backend: str, states: dict[str, int]) -> None:
    """No matter what a server says, the line fits and holds nothing that a terminal would obey."""
    differs = dict.fromkeys(states, backend)
    line = text(Outlook(backend, "p", "warn", differs, states, 7, "x"), width)
    assert len(line) <= max(width, 0)
    assert line.isprintable() or not line.replace("\u3000", "").strip() or all(ord(c) >= 0x20 for c in line)


def test_the_mode_outlives_the_counts_where_it_is_narrow() -> None:
    """In 40 columns the mode still stands."""
    assert "mode warn (log only)" in text(
        Outlook("a-long-host-name.example.com", "work", "warn", {}, {"ready": 12}, 3), 40
    )


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("local", "local"),
        ("unix:///run/x.sock", "unix:///run/x.sock"),
        ("https://me:secret@host.example:8443/v0?key=1", "host.example:8443"),
    ],
)
def test_a_backend_is_named_without_secrets(url: str, shown: str) -> None:
    """Users, passwords, paths and queries are left out."""
    assert backend_of(url) == shown


def test_states_are_counted() -> None:
    """The busiest state comes first."""
    assert list(counted({"a": "stopped", "b": "ready", "c": "ready"}.copy()).items()) == [
        ("ready", 2),
        ("stopped", 1),
    ]


@pytest.mark.parametrize("columns", [40, 80, 100])
@pytest.mark.parametrize("sandbox", [None, "alpha"])
def test_open_questions_are_counted_next_to_the_mode(columns: int, sandbox: str | None) -> None:
    """The mode `ask` and how many places are asked about are there at every width, of the sandbox in use and of all."""
    outlook = Outlook(
        "local", "default", mode="ask", sandbox=sandbox, states={"ready": 3}, denied=7, questions=1234
    )
    line = "".join(text for _, text in toolbar(outlook, columns))
    assert f"{'alpha: ' if sandbox else ''}mode ask" in line
    assert "1,234 asked" in line
    assert "asked" not in "".join(text for _, text in toolbar(outlook._replace(questions=0), columns))


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        ((), ""),
        (("3400",), "1 rule ends in 40 min"),
        (("4600", "3400", "stop"), "2 rules end, first in 40 min"),
        (("stop",), "1 rule until it stops"),
        (("stop", "stop", "999"), "2 rules until it stops"),
        (("not a time",), ""),
    ],
)
def test_timed_rules_in_words(ends: tuple[str, ...], words: str) -> None:
    """How many rules end, and when the first does; what is over is not counted."""
    assert told(ends, 1000.0) == words


@pytest.mark.parametrize("columns", [40, 80, 100, 200])
def test_timed_rules_of_the_sandbox_in_use_are_shown(columns: int) -> None:
    """They stand after the mode while there is room, and not once another sandbox is in use."""
    outlook = Outlook(
        "local", mode="deny", sandbox="alpha", states={"ready": 3}, denied=0, timed="1 rule ends in 40 min"
    )
    line = text(outlook, columns)
    assert len(line) <= columns
    assert "alpha: mode deny" in line
    assert ("│ 1 rule ends in 40 min │" in line) == (columns >= 80)
    assert "ends" not in text(outlook.for_sandbox("beta"), columns)
