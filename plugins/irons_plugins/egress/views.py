"""How rules and modes are shown to a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.text import clean

if TYPE_CHECKING:
    from irons_plugins.egress.handlers import Change, Mode


def change(row: Change) -> str:
    """Return what a rule does from now on, in one line."""
    where = f" for {clean(row.sandbox)}" if row.sandbox else ""
    done = {"allow": "allowed", "deny": "denied"}.get(row.list, clean(row.list))
    before = "" if row.changed else " already"
    cut = f" ({row.cut} live connection{'s' if row.cut != 1 else ''} cut)" if row.cut else ""
    return f"{clean(row.pattern)} is{before} {done}{where}{cut}. {clean(row.covers)}"


def mode(row: Mode) -> str:
    """Return the mode, and behind it the sandboxes that have another."""
    source = f" ({clean(row.source)})" if row.sandbox else ""
    differs = ", ".join(f"{clean(name)}: {clean(other)}" for name, other in row.differs.items())
    return f"{clean(row.mode)}{source}" + (f" (but {differs})" if differs else "")
