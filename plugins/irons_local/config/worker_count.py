"""How many workers the gateway has: one for each processor, four at most, unless the settings say otherwise."""

from __future__ import annotations

import os
from pathlib import Path

SETTING = "gateway_workers"
"""In `[local]` of the settings file."""
DEFAULT_MOST = 4
MOST = 64


def default() -> int:
    """As many as there are processors that this process may use, up to `DEFAULT_MOST`."""
    return max(1, min(DEFAULT_MOST, len(os.sched_getaffinity(0))))


def fits(value: object) -> bool:
    """Whether a setting is a number of workers."""
    return type(value) is int and 0 < value <= MOST


def wanted(settings: Path) -> int:
    """The number in a settings file; the default where it has none, or one that does not fit: others complain of that."""
    try:
        text = settings.read_text("utf-8")
    except (OSError, ValueError):
        return default()
    # Only who has settings needs this.
    import tomllib

    try:
        local = tomllib.loads(text).get("local", {})
    except ValueError:
        return default()
    value = local.get(SETTING) if isinstance(local, dict) else None
    return value if isinstance(value, int) and fits(value) else default()
