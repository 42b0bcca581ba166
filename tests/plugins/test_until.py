"""The end of a rule as a local time, also where the clocks go back and forward."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

import pytest

from irons_plugins.egress.until import read_until


@pytest.fixture(autouse=True)
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A zone by its own rule: from 2 o'clock EST on 8 March 2026, and from 2 o'clock EDT on 1 November 2026."""
    monkeypatch.setenv("TZ", "EST5EDT,M3.2.0,M11.1.0")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("now", "word", "end"),
    [
        ("2026-11-01T01:15:00-04:00", "01:30", "2026-11-01T05:30:00Z"),
        ("2026-11-01T01:45:00-04:00", "01:30", "2026-11-01T06:30:00Z"),
        ("2026-11-01T01:45:00-05:00", "01:30", "2026-11-02T06:30:00Z"),
        ("2026-11-01T12:00:00-05:00", "18:00", "2026-11-01T23:00:00Z"),
        ("2026-11-01T18:00:00-05:00", "18:00", "2026-11-02T23:00:00Z"),
        # There is no 02:30 on that day: it is an hour after 01:30.
        ("2026-03-08T01:00:00-05:00", "02:30", "2026-03-08T07:30:00Z"),
        ("2026-03-08T04:00:00-04:00", "02:30", "2026-03-09T06:30:00Z"),
        ("2026-03-01T00:00:00-05:00", "2026-03-08 02:30", "2026-03-08T07:30:00Z"),
        ("2026-03-01T00:00:00-05:00", "2026-11-01 01:30", "2026-11-01T05:30:00Z"),
    ],
)
def test_a_local_time_is_the_next_that_comes(now: str, word: str, end: str) -> None:
    """Never one that is over, and never a day later than it need be."""
    assert read_until(word, datetime.fromisoformat(now)).text == end
