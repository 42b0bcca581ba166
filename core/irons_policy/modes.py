"""The modes and the verdicts of a policy, as data. Commands read these at every start, so the module imports little."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal

Mode = Literal["warn", "deny", "ask"]
MODES: Final[tuple[Mode, ...]] = ("warn", "deny", "ask")
"""`deny` enforces the rules; `warn` waives their verdicts, and nothing else; `ask` is `deny` where a person may be asked first."""
WIRE_MODES: Final[tuple[Mode, ...]] = ("warn", "deny")
"""The modes that v0 clients, and gateways from before there was a third, know; `ask` is `deny` there, with a further field."""
MODE_SYNONYMS: Final[tuple[tuple[str, str], ...]] = (
    ("audit", "warn"),
    ("monitor", "warn"),
    ("permissive", "warn"),
    ("enforce", "deny"),
    ("enforcing", "deny"),
    ("inherit", "account"),
)
"""Other tools' words for the modes, and for following the mode of all sandboxes; people may type them."""
Verdict = Literal["allowed", "blocked", "warn"]
VERDICTS: Final[tuple[Verdict, ...]] = ("allowed", "blocked", "warn")
"""The verdict of the rules on an attempt; `warn` is what only mode warn let pass."""


def wire_mode(mode: str) -> dict[str, Any]:
    """Return the fields that carry a mode: `ask` is `{"mode": "deny", "ask": True}`, so that who does not know it denies."""
    return {"mode": "deny", "ask": True} if mode == "ask" else {"mode": mode}


def read_mode(fields: Mapping[str, Any]) -> Any:
    """Return the mode that fields carry, as `wire_mode` writes them; what is not a mode is returned as it is."""
    mode = fields.get("mode")
    return "ask" if mode == "deny" and fields.get("ask") is True else mode
