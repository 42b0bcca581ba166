"""When a sandbox ends, in words, and what is kept of those that end soon."""

from __future__ import annotations

import time

import pytest

from irons.client.models.sandboxes import Sandbox
from irons.ending import ending, lasting, noted, soonest, told


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59, "59 s"),
        (60, "1 min"),
        (3600, "1 h"),
        (3725, "1 h 2 min"),
        (90_061, "1 d 1 h"),
        (None, ""),
    ],
)
def test_durations(seconds: int | None, text: str) -> None:
    """A duration is reported in its two largest units."""
    assert lasting(seconds) == text


def test_what_ends_soon_is_kept() -> None:
    """Those that run and end within five minutes are kept, the first of them is named, and the others are counted."""
    kept = noted(
        (
            Sandbox("far", "ready", ends_in=301, ends_with="stop"),
            Sandbox("stopped", "stopped", ends_in=10, ends_with="stop"),
            Sandbox("never", "ready"),
            Sandbox("second", "ready", ends_in=280, ends_with="stop"),
            Sandbox("first", "ready", ends_in=200, ends_with="destroy"),
        )
    )
    assert set(kept) == {"first", "second"}
    assert soonest(kept).startswith("first is destroyed in 3 min")
    assert soonest(kept).endswith("(+1)")
    assert told(kept, "second").startswith("stops in 4 min")
    assert told(kept, "far") == ""


def test_what_is_kept_may_be_old_or_broken() -> None:
    """An end that has passed is not shown any more, and a file that someone else wrote breaks nothing."""
    assert told({"a": f"{int(time.time()) - 60} stop"}, "a") == ""
    assert soonest({"a": "x stop", "b": "", "c": f"{int(time.time()) - 60} stop"}) == ""
    assert ending(0, "stop") == "stops in 0 s"
