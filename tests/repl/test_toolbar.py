"""The line below the prompt."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from irons_repl.status.status_model import Outlook, backend_of, counted
from irons_repl.status.toolbar import toolbar

FULL = Outlook("local", "work", "deny", 0, {"ready": 3, "stopped": 1}, 2)


def text(outlook: Outlook, width: int = 100) -> str:
    """The line without its styles."""
    return "".join(part for _, part in toolbar(outlook, width))


def style_of(outlook: Outlook, wanted: str) -> str:
    """The style of the part that holds a text."""
    return next(style for style, part in toolbar(outlook, 100) if wanted in part)


def test_it_tells_where_and_how_things_are() -> None:
    """Backend and profile, mode, sandboxes by state, and denials stand in one line."""
    assert text(FULL) == " local (work) │ mode deny │ 3 ready │ 1 stopped │ 2 denied"


def test_what_is_about_to_end_is_red() -> None:
    """A sandbox that is about to be stopped by time is named, and cleaned."""
    ending = Outlook("local", mode="deny", ending="alpha stops in 4 min")
    assert style_of(ending, "alpha stops in 4 min") == "class:bad"
    assert "\x1b" not in text(Outlook("local", ending="\x1b[2J stops in 4 min"))


def test_warn_is_red() -> None:
    """What leaves things open is red: mode warn, and sandboxes with a mode of their own."""
    assert style_of(Outlook("local", mode="warn"), "WARN: nothing is blocked") == "class:bad"
    assert style_of(Outlook("local", mode="deny"), "mode deny") == "class:good"
    assert style_of(Outlook("local", mode="deny", differs=1), "1 of its own") == "class:bad"


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
    line = text(Outlook(backend, "p", "warn", 1, states, 7, "x"), width)
    assert len(line) <= max(width, 0)
    assert line.isprintable() or not line.replace("\u3000", "").strip() or all(ord(c) >= 0x20 for c in line)


def test_the_mode_outlives_the_counts_where_it_is_narrow() -> None:
    """In 40 columns the mode still stands."""
    assert "WARN" in text(Outlook("a-long-host-name.example.com", "work", "warn", 0, {"ready": 12}, 3), 40)


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
