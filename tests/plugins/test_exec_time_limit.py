"""Until when OpenSSH may run for a program that has a time limit: longer where it has output that stdout has no room for."""

from __future__ import annotations

import contextlib
import os
import time

import pytest

from irons_plugins.ssh.execute.time_limit import has_no_room, time_limit
from irons_plugins.ssh.openssh.marks import Marks

TOKEN = "0" * 32
PAST = -3600.0
"""A limit that is over when it begins."""


def read(*marks: str) -> Marks:
    """Return what these marks say."""
    found = Marks(TOKEN, "127.0.0.1")
    for mark in marks:
        found.feed(f"\0irons {TOKEN} {mark}\n".encode())
    return found


@pytest.mark.parametrize(
    ("marks", "full", "ends"),
    [
        (("began", "ended 0 no"), True, False),
        (("began", "ended 255 no"), True, False),
        (("began", "ended 143 yes"), True, False),
        (("began", "ended 0 no"), False, True),
        (("began", "ended 124 time"), True, True),
        (("began",), True, True),
    ],
)
def test_a_slow_reader_of_a_program_that_has_ended(marks: tuple[str, ...], full: bool, ends: bool) -> None:
    """A program that has ended in time loses no output to the limit of its time; one that has not waits for no reader."""
    before = time.monotonic()
    until = time_limit(read(*marks), PAST, None, lambda: full)
    assert (until() < before) is ends


def test_room_that_is_there_again() -> None:
    """OpenSSH has time to write what stdout has room for again, and that time ends."""
    rooms = iter([True, False, False])
    before = time.monotonic()
    until = time_limit(read("began", "ended 0 no"), PAST, None, lambda: next(rooms))
    first = until()
    assert first > before
    assert until() == until() == first


def test_a_pipe_has_room_until_it_is_full() -> None:
    """A full pipe has none while it is read, and is no reason to wait once its reader has gone."""
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as pipe, os.fdopen(reading, "rb") as reader:
        os.set_blocking(writing, False)
        assert not has_no_room(pipe)
        with contextlib.suppress(BlockingIOError):
            while True:
                os.write(writing, bytes(4096))
        assert has_no_room(pipe)
        reader.close()
        assert not has_no_room(pipe)
