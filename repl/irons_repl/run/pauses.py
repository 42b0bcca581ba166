"""The interpreter's pauses, kept out of the way of keys.

A full collection of garbage goes through every object that was imported, which takes longer than a key may. A thread that computes
keeps the interpreter for 5 ms at a time, and a key takes several turns.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

SWITCH = 0.0005
"""Seconds for which a thread keeps the interpreter while another one waits for it."""

YOUNG = (700, 10, 1_000_000)
"""When young objects are collected, as the interpreter does it; old ones are when `between_lines` is called."""


@contextmanager
def short_pauses() -> Iterator[None]:
    """Keep pauses short until the end: what there is now is never collected, and what comes only between keys."""
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.freeze()
    gc.set_threshold(*YOUNG)
    sys.setswitchinterval(SWITCH)
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        gc.set_threshold(*thresholds)
        gc.unfreeze()


def between_lines() -> None:
    """Collect what has become garbage: a command has run, and no key has come yet."""
    gc.collect()
