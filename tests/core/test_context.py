"""What a handler is given: asking, narrating, waiting."""

from __future__ import annotations

import io
import threading

import pytest

from irons.context import Context
from irons.errors import UsageError
from irons.host import PluginHost
from irons.settings.settings import load
from irons.terminal.streams import Streams


def context(
    env: dict[str, str], *, tty: bool, typed: str = "", **flags: object
) -> tuple[Context, io.StringIO]:
    """A context and what it says on stderr."""
    err = io.StringIO()
    streams = Streams(io.StringIO(typed), io.StringIO(), err, env, tty, tty, tty)
    return Context(load(flags, env), PluginHost(env, built_in=()), streams), err


@pytest.mark.parametrize(
    ("typed", "answer"),
    [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False), ("yep\n", False)],
)
def test_a_person_is_asked(irons_env: dict[str, str], typed: str, answer: bool) -> None:
    """Only yes is yes."""
    ctx, err = context(irons_env, tty=True, typed=typed)
    assert ctx.confirm("Destroy \x1b[1mone?", otherwise="use --force") is answer
    assert err.getvalue() == "Destroy \\x1b[1mone? [y/N] "


@pytest.mark.parametrize(("tty", "flags"), [(False, {}), (True, {"no_input": True})])
def test_nobody_is_asked(irons_env: dict[str, str], tty: bool, flags: dict[str, object]) -> None:
    """Without a person it is an error that says what to do otherwise, and stdin is left alone."""
    ctx, err = context(irons_env, tty=tty, typed="y\n", **flags)
    with pytest.raises(UsageError) as caught:
        ctx.confirm("Destroy one?", otherwise="use --force")
    assert caught.value.hint == "use --force"
    assert err.getvalue() == ""
    assert ctx.streams.stdin.read() == "y\n"


def test_progress_is_a_clean_line_on_stderr(irons_env: dict[str, str]) -> None:
    """Narration goes to stderr, cleaned."""
    ctx, err = context(irons_env, tty=False)
    ctx.progress("one\x1b[2J\ntwo")
    assert err.getvalue() == "one\\x1b[2J\\ntwo\n"


def test_no_spinner_where_nobody_watches(irons_env: dict[str, str]) -> None:
    """In a pipe, and on a dumb terminal, nothing turns."""
    for ctx, err in (context(irons_env, tty=False), context({**irons_env, "TERM": "dumb"}, tty=True)):
        with ctx.waiting("creating one") as spinner:
            spinner.tell("starting one")
        assert err.getvalue() == ""


class _Watched(io.StringIO):
    """A stream that says when a text was written to it."""

    def __init__(self, wanted: str) -> None:
        super().__init__()
        self.wanted = wanted
        self.seen = threading.Event()

    def write(self, text: str) -> int:
        if self.wanted in text:
            self.seen.set()
        return super().write(text)


def test_a_spinner_shows_the_line_and_leaves_nothing(irons_env: dict[str, str]) -> None:
    """On a terminal the line turns with the time it took, one row at most, and is wiped at the end."""
    err = _Watched("starting")
    streams = Streams(io.StringIO(), io.StringIO(), err, {**irons_env, "COLUMNS": "30"}, True, True, True)
    ctx = Context(load({}, irons_env), PluginHost(irons_env, built_in=()), streams)
    with ctx.waiting("creating one") as spinner:
        spinner.tell("starting " + "x" * 100 + "\n")
        assert err.seen.wait(60)
    frames = err.getvalue().split("\r\x1b[K")
    assert frames[-1] == ""
    assert any("creating one" in frame or "starting" in frame for frame in frames)
    assert all(len(frame) < 30 and "\n" not in frame for frame in frames)


def test_a_client_is_opened_once_and_closed(irons_env: dict[str, str]) -> None:
    """The API is opened when first touched, kept for the call, and closed at its end."""
    ctx, err = context({**irons_env, "IRONS_API_URL": "http://127.0.0.1:1"}, tty=False, debug=True)
    api = ctx.api
    assert ctx.api is api
    ctx.close()
    assert ctx.names.read() == {}
    assert err.getvalue() == ""
