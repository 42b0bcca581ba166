"""Rules as requests and answers have them."""

from __future__ import annotations

from irons_local.control.schema.schemas import Schema, listing, optional, record, text
from irons_policy.ends import LONGEST
from irons_policy.modes import WIRE_MODES
from irons_policy.rules import LISTS

MOST_RULES = 5_000
MOST_NEVER = 500
"""Patterns of `never` of one scope; each connection that no rule covers is compared with all of them."""
SHOWN_MODE: dict[str, Schema] = {
    "mode": {"type": "string", "enum": list(WIRE_MODES)},
    "ask": {"type": "boolean", "description": "True where the mode is `ask`, which `mode` has as `deny`."},
}
"""A mode as answers have it: clients that do not know `ask` read `deny`."""
PATTERN = text(400, minLength=1, pattern=r"^\S+$")
PRIVATE = optional(listing(text(64), 64))
NOTE = optional(text(500))
BROAD: Schema = {"type": "boolean"}
FOR: Schema = {
    "type": "integer",
    "minimum": 1,
    "maximum": LONGEST,
    "description": "Seconds after which the rule ends by itself.",
}
UNTIL: Schema = {
    **text(40, minLength=1),
    "description": "When the rule ends by itself: an RFC 3339 time, or `stop`: when its sandbox stops.",
}

RULE = record(
    {
        "pattern": PATTERN,
        "list": text(8, enum=list(LISTS)),
        "private": PRIVATE,
        "note": NOTE,
        "broad": BROAD,
        "until": UNTIL,
    },
    required=("pattern", "list"),
)
RULES = listing(RULE, MOST_RULES)

NEVER: Schema = {
    **listing(PATTERN, MOST_NEVER),
    "description": "Patterns that no person is asked about in mode `ask`: refused without a question. Without a port they are for every port.",
}

SHOWN_RULE: Schema = {
    "type": "object",
    "properties": {
        "pattern": {"type": "string"},
        "list": {"type": "string", "enum": list(LISTS)},
        "private": {"type": "array", "items": {"type": "string"}},
        "broad": {"type": "boolean"},
        "note": {"type": ["string", "null"]},
        "until": UNTIL,
        "left": {
            "type": "integer",
            "description": "Seconds until then, also where the wall clock was set back since the rule was made.",
        },
        "created_at": {"type": "string", "format": "date-time"},
        "covers": {"type": "string"},
    },
    "required": ["pattern", "list", "private", "note"],
}
