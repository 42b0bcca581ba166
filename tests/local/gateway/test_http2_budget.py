"""How many costly frames the HTTP/2 connections of one cell may send together, by a clock of the test's own."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import hpack
import pytest

from irons_local.gateway.budget.undecided import Budget, Holding
from irons_local.gateway.http1.authority import BadRequestError
from irons_local.gateway.http2 import frames as h2
from irons_local.gateway.http2.budget import FrameBudget
from irons_local.gateway.http2.conversation import Http2
from irons_local.gateway.http2.frames import ENHANCE_YOUR_CALM, Http2Error, frame, number, settings
from irons_local.gateway.http2.heads import Request

FIELDS = [(":method", "GET"), (":scheme", "http"), (":authority", "web.test"), (":path", "/")]
REQUEST = frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 1, hpack.Encoder().encode(FIELDS))
ACK = frame(h2.SETTINGS, h2.ACK, 0)
MEASURE = frame(h2.PING, 0, 0, b"measured")
MEASURED = frame(h2.PING, h2.ACK, 0, b"measured")
AT_ONCE = 1_000
"""Connections of one cell, about as many as it may have."""


class Clock:
    """A clock that moves only when the test moves it."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time, in seconds."""
        return self.now


def passes(_: Request | BadRequestError) -> None:
    """Let every request pass."""


def connection(cell: FrameBudget) -> Http2:
    """A connection of a cell whose client has sent nothing yet."""
    return Http2(passes, FrameBudget(cell), Holding(Budget()), greeted=False)


def say(engine: Http2, *said: bytes) -> None:
    """Have its client say something, and have all of it handled."""
    for data in said:
        engine.feed_client(data)
        while engine.step_client():
            pass
    engine.take_for_server()
    engine.take_for_client()


def answer(engine: Http2, *said: bytes) -> None:
    """Have its server say something, and have all of it handled."""
    for data in said:
        engine.feed_server(data)
        while engine.step_server()[1]:
            pass


def opened(cell: FrameBudget) -> Http2:
    """A connection that has opened as a client does that measures its path, up to the first answer."""
    engine = connection(cell)
    priorities = b"".join(frame(h2.PRIORITY, 0, 3 + 2 * at, bytes(5)) for at in range(5))
    say(engine, h2.PREFACE + settings({}) + number(h2.WINDOW_UPDATE, 0, 1 << 20) + priorities, REQUEST + ACK)
    engine.reached = True
    answer(engine, settings({}))
    say(engine, ACK + MEASURE)
    return engine


def refused(engine: Http2, said: bytes) -> bool:
    """Have a client say something; True where it was too much."""
    try:
        say(engine, said)
    except Http2Error as error:
        return error.code == ENHANCE_YOUR_CALM
    return False


def passed(engines: Iterable[Http2], flood: bytes) -> int:
    """How many connections say all of a flood before one is refused for it."""
    return len(list(itertools.takewhile(lambda engine: not refused(engine, flood), engines)))


def test_the_openings_of_a_thousand_connections_use_up_nothing_of_their_cell() -> None:
    """Not their settings, acknowledgements, priorities, measures or first requests; then a flood is still refused."""
    cell = FrameBudget(clock=Clock())
    engines = [opened(cell) for _ in range(AT_ONCE)]
    growing = b"".join(settings({h2.INITIAL_WINDOW_SIZE: 65_535 << at}) for at in range(9))
    assert passed(engines, growing) == AT_ONCE
    assert 5 < passed(engines, settings({}) * 10) < 20


@pytest.mark.parametrize(
    "flood",
    [
        settings({}) * 40,
        ACK * 40,
        MEASURE * 400,
        frame(h2.PRIORITY, 0, 3, bytes(5)) * 1_500,
        number(h2.WINDOW_UPDATE, 0, 1) * 30_000,
    ],
    ids=["settings", "acknowledgements of nothing", "measures", "priorities", "windows"],
)
def test_a_flood_by_many_connections_is_refused_until_time_has_passed(flood: bytes) -> None:
    """None of them sends too much by itself; the cell's budget fills again by the clock."""
    clock = Clock()
    cell = FrameBudget(clock=clock)
    flood = h2.PREFACE + settings({}) + flood
    assert 0 < passed((connection(cell) for _ in range(10)), flood) < 10
    clock.now += 60
    assert passed([connection(cell)], flood) == 1


def test_what_a_server_calls_for_is_free() -> None:
    """Windows for the data that came, the measure of its path, and acknowledgements: as many as the server caused."""
    cell = FrameBudget(clock=Clock())
    data = frame(h2.DATA, 0, 1, bytes(100))
    engine = opened(cell)
    for _ in range(600):
        answer(engine, data * 100 + MEASURE + settings({}))
        say(engine, number(h2.WINDOW_UPDATE, 0, 100) * 100 + number(h2.WINDOW_UPDATE, 1, 100) * 100)
        say(engine, MEASURE * 2 + MEASURED + ACK)


def test_what_a_server_calls_for_is_not_saved_up_without_end() -> None:
    """After a long download a client may not flood as long as that was."""
    engine = opened(FrameBudget(clock=Clock()))
    for _ in range(1_000):
        answer(engine, frame(h2.DATA, 0, 1, b"x") * 100)
    assert passed([engine] * 50, MEASURE * 100) < 50


def test_what_a_servers_acknowledgement_calls_for_is_nothing() -> None:
    """It answers the client, who has nothing to say to it."""
    engine = opened(FrameBudget(clock=Clock()))
    answer(engine, MEASURED * 1_000)
    assert not passed([engine], MEASURE * 600)
