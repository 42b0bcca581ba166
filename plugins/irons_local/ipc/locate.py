"""Which keeper holds a user's state, and where it serves: what a client reads before it looks for the keeper.

One user may have sessions with different runtime directories, or none; there is one keeper all the same, and the
lock in the state directory says where to find it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from irons_local.ipc.framing import LinkError, RequestError
from irons_local.ipc.link import Link
from irons_local.paths import Paths

_ANSWER_WITHIN = 10.0


def settle(paths: Paths) -> Paths:
    """These places, or with the runtime directory of another session where a living keeper serves this state."""
    holder = read(paths.state_lock)
    if holder is None or holder["runtime"] == str(paths.runtime):
        return paths
    other = paths._replace(runtime=Path(holder["runtime"]))
    return other if answers(other) else paths


def read(lock: Path) -> dict[str, Any] | None:
    """What the last holder of a lock wrote in it: its `process` and its `runtime` directory; None if nothing useful."""
    try:
        found = json.loads(lock.read_text("utf-8"))
        known = isinstance(found["runtime"], str) and isinstance(found["process"]["pid"], int)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if known else None


def answers(paths: Paths) -> bool:
    """Whether a keeper of this user serves that runtime directory."""
    try:
        if paths.runtime.lstat().st_uid != os.geteuid():
            return False
        with Link.to(paths.keeper_socket, _ANSWER_WITHIN) as link:
            link.request("hello")
    except (OSError, LinkError, RequestError):
        return False
    return True
