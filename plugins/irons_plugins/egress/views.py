"""How rules, modes and policies are shown to a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.text import clean

if TYPE_CHECKING:
    from irons.client.models.egress import ModeInfo
    from irons_plugins.egress.rows import Change, Drift, PolicyRow

_DONE = {"allow": "allowed", "deny": "denied", "": "no longer in a list"}
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}
_VERDICTS = {"allowed": "ALLOWED", "blocked": "DENIED", "warn": "WOULD-DENY"}


def change(row: Change) -> str:
    """Return what a rule does from now on, in one line."""
    where = f" for {clean(row.sandbox)}" if row.sandbox else ""
    before = "" if row.changed else " already"
    cut = f" ({row.cut} live connection{'s' if row.cut != 1 else ''} cut)" if row.cut else ""
    covers = f" {clean(row.covers)}" if row.covers else ""
    return f"{clean(row.pattern)} is{before} {_DONE.get(row.list, clean(row.list))}{where}{cut}.{covers}"


def mode(row: ModeInfo) -> str:
    """Return the mode, and after it the sandboxes that have another."""
    source = f" ({clean(row.source)})" if row.sandbox else ""
    differs = ", ".join(f"{clean(name)}: {clean(other)}" for name, other in row.differs.items())
    return f"{clean(row.mode)}{source}" + (f" (but {differs})" if differs else "")


def verdict(value: object) -> str:
    """Return a verdict's word."""
    return _VERDICTS.get(str(value), str(value))


def live(value: object) -> object:
    """Return what came of reaching a host, with times as people read them; nothing where it was not tried."""
    if not isinstance(value, dict):
        return ""
    shown: dict[str, object] = {"outcome": value.get("outcome")}
    for key, title in (("address", "address"), ("resolve_ms", "resolved in"), ("connect_ms", "connected in")):
        found = value.get(key)
        if found is not None:
            shown[title] = f"{found} ms" if key.endswith("_ms") else found
    if value.get("proxy") is True:
        shown["by"] = "the upstream proxy"
    if value.get("error"):
        shown["error"] = value["error"]
    return shown


def drift(row: Drift) -> str:
    """Return one difference as a line."""
    if row.change == "mode":
        return f"mode: {clean(row.before) or 'as the account'} -> {clean(row.pattern)}"
    private = f" --private {clean(','.join(row.private))}" if row.private else ""
    note = f"  # {clean(row.note)}" if row.note else ""
    before = f" (now {clean(row.before)})" if row.before else ""
    return f"{_SIGNS.get(row.change, '?')} {clean(row.list)} {clean(row.pattern)}{private}{before}{note}"


def policy(row: PolicyRow) -> str:
    """Return a policy as the text of its file."""
    from irons_plugins.egress.policy_file import render_policy

    return render_policy(row.mode, row.rules).rstrip("\n")
