"""Rules as requests and answers have them."""

from __future__ import annotations

from irons_local.control.schema.schemas import Schema, listing, optional, record, text
from irons_policy.rules import LISTS

MOST_RULES = 5_000
PATTERN = text(400, minLength=1, pattern=r"^\S+$")
PRIVATE = optional(listing(text(64), 64))
NOTE = optional(text(500))
BROAD: Schema = {"type": "boolean"}

RULE = record(
    {
        "pattern": PATTERN,
        "list": text(8, enum=list(LISTS)),
        "private": PRIVATE,
        "note": NOTE,
        "broad": BROAD,
    },
    required=("pattern", "list"),
)
RULES = listing(RULE, MOST_RULES)

SHOWN_RULE: Schema = {
    "type": "object",
    "properties": {
        "pattern": {"type": "string"},
        "list": {"type": "string", "enum": list(LISTS)},
        "private": {"type": "array", "items": {"type": "string"}},
        "broad": {"type": "boolean"},
        "note": {"type": ["string", "null"]},
        "created_at": {"type": "string", "format": "date-time"},
        "covers": {"type": "string"},
    },
    "required": ["pattern", "list", "private", "note"],
}
