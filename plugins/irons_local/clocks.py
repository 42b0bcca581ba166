"""The clocks that end a rule, read at one moment."""

from __future__ import annotations

import time

from irons_local import times
from irons_policy.ends import Moment


def moment() -> Moment:
    """This moment by the wall clock and by CLOCK_BOOTTIME."""
    return Moment(times.now(), time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1000)
