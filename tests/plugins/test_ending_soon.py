"""Open sessions say that their sandbox is about to be stopped or destroyed by time."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator

import pytest

from irons.context import Context
from irons.host import PluginHost
from irons.settings.settings import load
from irons.terminal.streams import Streams
from irons.testing import FakeApi
from irons_plugins.ssh.ending.ending_soon import telling_end

from .conftest import until


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer is given up because the machine stands still."""
    monkeypatch.setattr("irons_plugins.ssh.ending.ending_soon.PATIENCE", 600.0)


@pytest.fixture
def ctx(own: FakeApi, irons_env: dict[str, str]) -> Iterator[Context]:
    """A call's context at a server of irons' own."""
    settings = load({"api_url": own.url}, irons_env)
    streams = Streams(io.StringIO(), io.StringIO(), io.StringIO(), irons_env)
    found = Context(settings, PluginHost(irons_env), streams)
    yield found
    found.close()


def polls(api: FakeApi) -> int:
    """How often the server was asked about `one`."""
    return api.lines().count("GET /sandboxes/one")


@pytest.mark.parametrize("raw", [False, True])
def test_a_session_says_that_its_sandbox_ends(ctx: Context, own: FakeApi, raw: bool) -> None:
    """Within five minutes of the end there is one line with how to get more time; in raw mode it begins at the left."""
    own.sandboxes["one"].terms = {"ttl": 3600, "ends_in": 299, "ends_with": "stop"}
    with telling_end(ctx, "one", raw=raw, first=0.01):
        until(lambda: "irons extend" in ctx.streams.stderr.getvalue())  # type: ignore[attr-defined]
    said = ctx.streams.stderr.getvalue()  # type: ignore[attr-defined]
    line = "irons: one stops in 4 min; irons extend one 2h gives it more time"
    assert said == (f"\r\n{line}\r\n" if raw else f"{line}\n")


def test_a_terminal_that_the_server_writes_to_is_told_once(ctx: Context, own: FakeApi) -> None:
    """Where the server writes to terminals itself, only what was so before the session began comes from here."""
    own.extensions = (*own.extensions, "end-notices")
    own.sandboxes["one"].terms = {"ttl": 3600, "ends_in": 3000, "ends_with": "stop"}
    with telling_end(ctx, "one", raw=True, first=0.01):
        # Its one question was asked and answered.
        until(lambda: all(thread.name != "irons-ending" for thread in threading.enumerate()))
        own.sandboxes["one"].terms["ends_in"] = 200
    assert (polls(own), ctx.streams.stderr.getvalue()) == (1, "")  # type: ignore[attr-defined]
    with telling_end(ctx, "one", raw=True, first=0.01):
        until(lambda: "irons extend" in ctx.streams.stderr.getvalue())  # type: ignore[attr-defined]


def test_a_session_far_from_the_end_says_nothing(ctx: Context, own: FakeApi) -> None:
    """Without a deadline, or with one that is far away, nothing is reported."""
    own.sandboxes["one"].terms = {"ttl": 3600, "ends_in": 3000, "ends_with": "stop"}
    with telling_end(ctx, "one", raw=False, first=0.01):
        until(lambda: polls(own) > 0)
    assert ctx.streams.stderr.getvalue() == ""  # type: ignore[attr-defined]


def test_a_short_session_asks_nothing(ctx: Context, own: FakeApi) -> None:
    """A session that is over at once costs no request."""
    with telling_end(ctx, "one", raw=False, first=3600.0):
        pass
    assert polls(own) == 0
