"""A connection that has ended leaves nothing to the garbage collector, whose runs hold up every other connection."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.gateway.conversations import TALKS
from tests.local.gateway.live_talks import Loop, Sockets
from tests.local.gateway.talks import Talk, without_io


@contextlib.contextmanager
def collected() -> Iterator[list[object]]:
    """What the garbage collector finds of what was made in here; filled at the end."""
    found: list[object] = []
    gc.disable()
    # What there is already is not searched, in here and after it: the tests' own objects are frozen too (`tests.garbage`).
    gc.collect()
    gc.freeze()
    try:
        yield found
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        found += gc.garbage
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize("talk", TALKS.values(), ids=TALKS.keys())
def test_nothing_is_left_to_the_collector(talk: Talk, tmp_path: Path) -> None:
    """Every conversation of the list, however it ends: passed, refused, cut, broken off, HTTP/2 or not."""
    wanted = without_io(talk)
    with contextlib.closing(Loop(stands=True)) as loop:
        sockets = Sockets(talk, tmp_path / "cell", loop)
        with collected() as left:
            loop.run_until_complete(sockets.run(wanted))
            del sockets.attempt
            # The loop lets go of what it ran last in its next round.
            loop.run_until_complete(asyncio.sleep(0))
    assert [type(each).__qualname__ for each in left] == []
