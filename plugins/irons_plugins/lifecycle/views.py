"""How sandboxes are shown to a person."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from irons.text import clean

if TYPE_CHECKING:
    from irons.api import Sandbox
    from irons_plugins.lifecycle.handlers import Destroyed

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


def destroyed(row: Destroyed) -> str:
    """Return what became of a sandbox that is no more."""
    return f"{clean(row.name)} is destroyed"
