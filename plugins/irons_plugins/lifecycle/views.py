"""How sandboxes are shown to a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from irons.text import clean

if TYPE_CHECKING:
    from irons.api import Sandbox

CIRCLES: Mapping[str, str] = {
    "running": "🟢",
    "ready": "🟢",
    "creating": "🟡",
    "starting": "🟡",
    "stopping": "🟠",
    "stopped": "🟠",
    "error": "🔴",
}
UNKNOWN = "⚪"


def circled(state: object) -> str:
    """Return a state behind its circle; a state that irons does not know has a white one."""
    text = str(state or "")
    return f"{CIRCLES.get(text, UNKNOWN)} {text}".rstrip()


def outcome(sandbox: Sandbox) -> str:
    """Return what became of a sandbox, in one line."""
    state = sandbox.status
    return f"{CIRCLES.get(state, UNKNOWN)} {clean(sandbox.name)} is {clean(state) or 'in a state unknown'}"


def name(sandbox: Sandbox) -> str:
    """Return a sandbox's name, fit for a terminal."""
    return clean(sandbox.name)
