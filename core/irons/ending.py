"""When a sandbox ends, in words; and those that end soon, kept for faces that only read."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irons.client.models.sandboxes import Sandbox

NEAR = 300
"""Seconds before its end from which on lists, prompts and sessions say that a sandbox ends."""

ENDS = "ends"
"""The cache of what ends soon, next to the names."""

_STEP = 10
_RUNNING = ("ready", "running")


def lasting(seconds: object) -> str:
    """Return a duration in its two largest units; nothing where it is not one."""
    if not isinstance(seconds, int):
        return ""
    if seconds < 60:
        return f"{max(0, seconds)} s"
    days, rest = divmod(seconds, 86_400)
    hours, minutes = rest // 3600, rest % 3600 // 60
    parts = [f"{count} {unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "min")) if count]
    return " ".join(parts[:2])


def ending(left: int, ends_with: str) -> str:
    """Return what is about to happen to a sandbox, and when: `stops in 4 min`."""
    return f"{'is destroyed' if ends_with == 'destroy' else 'stops'} in {lasting(left)}"


def near(status: object, left: object) -> bool:
    """Whether a sandbox in this state, with so many seconds left, is about to end."""
    return isinstance(left, int) and left <= NEAR and status in _RUNNING


def noted(sandboxes: Iterable[Sandbox]) -> dict[str, str]:
    """Return what is worth keeping of those that end soon: by name, when (seconds since 1970) and with what."""
    now = time.time()
    return {
        each.name: f"{round((now + (each.ends_in or 0)) / _STEP) * _STEP} {each.ends_with or 'stop'}"
        for each in sandboxes
        if near(each.status, each.ends_in)
    }


def told(kept: Mapping[str, str], name: str) -> str:
    """Return what is about to happen to a sandbox, from what `noted` kept; nothing where nothing is."""
    at, _, ends_with = kept.get(name, "").partition(" ")
    if not at.isascii() or not at.isdecimal():
        return ""
    left = int(at) - int(time.time())
    return ending(max(0, left), ends_with) if left > -_STEP else ""


def soonest(kept: Mapping[str, str]) -> str:
    """Return the sandbox that ends first, with what happens to it, and how many more there are."""
    texts = {name: told(kept, name) for name in sorted(kept, key=lambda name: kept[name])}
    live = [f"{name} {text}" for name, text in texts.items() if text]
    return (live[0] + (f" (+{len(live) - 1})" if len(live) > 1 else "")) if live else ""
