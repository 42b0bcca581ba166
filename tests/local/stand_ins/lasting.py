"""A function for `userns_main` that goes on for as long as it may."""

from __future__ import annotations

import threading
from typing import Any

from irons_local.linux.userns_main import Say


def stay(request: dict[str, Any], say: Say) -> dict[str, Any]:
    """Say that it began, and never end."""
    say("began", None)
    threading.Event().wait()
    return request
