"""What a tool answers: facts of irons, and the sandbox's own text, bounded and marked as untrusted."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from irons.record import NamedTuple
from irons.text import clean, rfc3339

LONGEST = 1 << 16
"""Characters of one piece of a sandbox's text in an answer."""

SHORT = 500
"""Characters of one value in a row."""


class ToolAnswer(NamedTuple):
    """An answer.

    Attributes:
        facts: What irons knows.
        untrusted: What comes from the sandbox, by what it is: texts, or rows whose values it chose.
        failed: Whether the tool failed.
    """

    facts: Mapping[str, Any]
    untrusted: Mapping[str, Any] = {}
    failed: bool = False

    def structured(self) -> dict[str, Any]:
        """Return it as one object; what is untrusted is under that name."""
        marked = {"untrusted": bounded(self.untrusted)} if self.untrusted else {}
        return {**bounded(self.facts), **marked}

    def text(self) -> str:
        """Return it as text. What is untrusted is between two lines with a number that the sandbox can't know."""
        parts = [_json(bounded(self.facts))]
        for what, value in self.untrusted.items():
            number = secrets.token_hex(8)
            told = bounded(value)
            parts += [
                f"[untrusted {what} of the sandbox begins: {number}]",
                told if isinstance(told, str) else _json(told),
                f"[untrusted {what} of the sandbox ends: {number}]",
            ]
        return "\n".join(parts)


def bounded(value: Any, longest: int = LONGEST) -> Any:
    """Return a value for JSON: times as text, texts cut, in rows shorter than alone."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return value if len(value) <= longest else f"{value[:longest]}… (cut)"
    if isinstance(value, Mapping):
        return {str(key): bounded(each, longest) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [bounded(each, min(longest, SHORT)) for each in value]
    if isinstance(value, datetime):
        return rfc3339(value)
    return clean(str(value), limit=SHORT)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=1)
