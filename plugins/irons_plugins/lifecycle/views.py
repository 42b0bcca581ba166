"""How sandboxes are shown to a person."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from irons.ending import ending, near
from irons.terminal.words import mode_word
from irons.text import clean, size_text

if TYPE_CHECKING:
    from irons.client.api import Sandbox
    from irons_plugins.lifecycle.destroyed import Destroyed

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

_ORDER = ("reason", "progress", "engine", "image", "user", "egress", "ssh_port", "addresses")
_SIZES = ("memory", "disk")
_COUNTED = re.compile(
    r"(?:cpus|memory|disk|processes)(?:_used)?|ssh_port|pid|oom_kills|keys_inside|(?:boot|entrypoint)_exit"
)
_NUMBER = re.compile(r"[0-9]{1,15}(?:\.[0-9]{1,6})?")
_SAID_WITH_ANOTHER = ("_note", "_used")


def bare(row: Mapping[str, Any]) -> str:
    """Return a sandbox's state alone, as a field for programs."""
    return str(row.get("status") or "")


def circled(state: object) -> str:
    """Return a state after its circle; a state that irons does not know has a white one."""
    text = str(state or "")
    return f"{CIRCLES.get(text, UNKNOWN)} {text}".rstrip()


def standing(row: Mapping[str, Any]) -> str:
    """Return a sandbox's state after its circle, and shortly before its end also that."""
    state = circled(row.get("status"))
    left = row.get("ends_in")
    if not near(row.get("status"), left):
        return state
    return f"{state} ({ending(left or 0, str(row.get('ends_with') or ''))})"


def done(ends_with: object) -> str:
    """Return what is done with a sandbox at its end."""
    return "it is destroyed" if ends_with == "destroy" else "it is stopped"


def extended(sandbox: Sandbox) -> str:
    """Return when a sandbox ends, in one line."""
    if sandbox.ends_in is None:
        return f"{clean(sandbox.name)} has no end"
    return f"{clean(sandbox.name)} {ending(sandbox.ends_in, sandbox.ends_with)}"


def outcome(sandbox: Sandbox) -> str:
    """Return what became of a sandbox, in one line."""
    state = sandbox.status
    return f"{CIRCLES.get(state, UNKNOWN)} {clean(sandbox.name)} is {clean(state) or 'in a state unknown'}"


def labels(value: Mapping[str, str] | None) -> str:
    """Return labels in one line."""
    return " ".join(f"{key}={item}" for key, item in sorted((value or {}).items()))


def labelled(value: Mapping[str, str]) -> dict[str, str]:
    """Return labels as one line of a record."""
    return {"labels": labels(value)}


def name(sandbox: Sandbox) -> str:
    """Return a sandbox's name, fit for a terminal."""
    return clean(sandbox.name)


def destroyed(row: Destroyed) -> str:
    """Return what became of a sandbox that is no more."""
    return f"{clean(row.name)} is destroyed"


def numbered(metadata: Mapping[str, str]) -> dict[str, Any]:
    """Return what a server tells of a sandbox with its counts and sizes as numbers: the v0 wire has texts only."""
    return {key: _number(value) if _COUNTED.fullmatch(key) else value for key, value in metadata.items()}


def told(sandbox: Sandbox) -> Sandbox:
    """Return a sandbox as answers have it, with its counts and sizes as numbers."""
    return sandbox._replace(metadata=numbered(sandbox.metadata))


def keys_inside(sandbox: Sandbox) -> str:
    """Return a line about the keys that came with the files of a copy, for people; "" where none did."""
    found = str(sandbox.metadata.get("keys_inside") or 0)
    if not found.isdigit() or not int(found):
        return ""
    keys, them = ("a public key", "it") if found == "1" else (f"{found} public keys", "they")
    return (
        f"{sandbox.name}: {keys} in .ssh/authorized_keys came with the files; {them} may open this copy too"
    )


def _number(text: str) -> int | float | str:
    """The number that a text is; the text itself where it is not one, such as `unlimited`."""
    if not _NUMBER.fullmatch(text):
        return text
    return float(text) if "." in text else int(text)


def facts(metadata: Mapping[str, object]) -> dict[str, str]:
    """Return what a server tells of a sandbox as lines for a person: sizes readable, and each limit with its use and what holds it.

    Servers tell sizes in bytes; what is used of a limit, and a note about it, are keys of their own (`memory_used`, `memory_note`).
    """
    shown: dict[str, str] = {}
    for key in (*(key for key in _ORDER if key in metadata), *(key for key in metadata if key not in _ORDER)):
        base = key.rpartition("_")[0]
        if (key.endswith(_SAID_WITH_ANOTHER) and base in metadata) or (
            key == "mode" and "egress" in metadata
        ):
            continue
        told = [_sized(key, str(metadata[key]))]
        if key == "ask" and "egress" in metadata:
            continue
        if key == "egress":
            told = [mode_word("ask" if metadata.get("ask") == "true" else told[0])]
        if f"{key}_used" in metadata:
            told.append(f"{_sized(key, str(metadata[f'{key}_used']))} used")
        if f"{key}_note" in metadata:
            told.append(str(metadata[f"{key}_note"]))
        if key == "egress":
            told.append("its own mode" if "mode" in metadata else "as all sandboxes")
        shown[key.replace("_", " ")] = told[0] + (f" ({'; '.join(told[1:])})" if told[1:] else "")
    return shown


def _sized(key: str, value: str) -> str:
    return size_text(int(value)) if key in _SIZES and value.isascii() and value.isdigit() else value
