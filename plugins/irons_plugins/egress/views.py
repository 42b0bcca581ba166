"""How rules, modes and policies are shown to a person."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from irons.ending import lasting
from irons.terminal.words import LISTS, mode_word
from irons.text import clean, local_time
from irons_policy.ends import STOP

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from irons.client.models.egress import ModeInfo
    from irons_plugins.egress.rows import Change, Drift, PolicyRow

_MODES = {
    "warn": "what no rule allows passes, and is logged",
    "deny": "what no rule allows is blocked",
    "ask": "what no rule allows waits for a person's answer while irons ask runs, else it is blocked",
}
_SIGNS = {"added": "+", "removed": "-", "changed": "~"}


def followed(followers: int | None) -> str:
    """Return how many sandboxes follow a change for all of them; nothing where that is not known."""
    if followers is None:
        return ""
    return (
        " (1 follows it)" if followers == 1 else f" ({followers} follow it)" if followers else " (none yet)"
    )


def change(row: Change) -> str:
    """Return what a rule does from now on, and for which sandboxes, in one line."""
    where = f" for {clean(row.sandbox or 'all sandboxes')}{followed(row.followers)}{_term(row)}"
    if not row.list:
        return f"the rule {clean(row.pattern)} is removed{where}{_cut(row)}."
    before = "" if row.changed else " already"
    covers = f" {clean(row.covers)}" if row.covers else ""
    return (
        f"{clean(row.pattern)} is{before} {LISTS.get(row.list, clean(row.list))}{where}{_cut(row)}.{covers}"
    )


def _term(row: Change) -> str:
    from irons.client.models.fields import time_of

    if row.seconds is not None:
        return f", for {lasting(row.seconds)}"
    if not row.until:
        return ""
    end = time_of(row.until)
    if row.until == STOP or end is None:
        return f", until {'it stops' if row.until == STOP else clean(row.until)}"
    return f", until {local_time(end)}"


def end(row: Mapping[str, Any]) -> str:
    """Return when a rule ends by itself, as the server has it; nothing where it stays for good."""
    return str(row["until"] or "")


def left(row: Mapping[str, Any]) -> str:
    """Return how long a rule stays: `59 min left`, or `until it stops`; nothing where it stays for good."""
    from irons.client.models.fields import time_of

    if row["until"] == STOP:
        return "until it stops"
    until = time_of(row["until"])
    if until is None:
        return ""
    # What the server says counts: its rule ends in time also where its clock was set back, or is another than this machine's.
    seconds = row["left"] if row["left"] is not None else round((until - datetime.now(UTC)).total_seconds())
    return f"{lasting(seconds)} left"


def _cut(row: Change) -> str:
    return f" ({row.cut} live connection{'s' if row.cut != 1 else ''} cut)" if row.cut else ""


def scope(word: str) -> str:
    """Return the scope of a rule as people call it."""
    return "all sandboxes" if word == "account" else word


def mode(row: ModeInfo) -> str:
    """Return the mode, and after it the sandboxes that have another."""
    source = f" ({clean(row.source)})" if row.sandbox else ""
    return f"{clean(row.mode)}{source}{_but(row)}"


def mode_told(row: ModeInfo) -> str:
    """Return a mode that a person asked for: what it is called, for which sandboxes, and the exceptions."""
    inherited = ", as all sandboxes" if row.sandbox and row.source != "sandbox" else ""
    return f"{mode_word(clean(row.mode))} for {clean(row.sandbox or 'all sandboxes')}{inherited}{_but(row)}"


def mode_set(row: ModeInfo) -> str:
    """Return a mode that was just set, for which sandboxes, and what it does."""
    whom = clean(row.sandbox or "all sandboxes")
    if row.sandbox and row.source != "sandbox":
        whom += ", which follows all sandboxes"
    does = f": {_MODES[row.mode]}" if row.mode in _MODES else ""
    return f"the mode is {clean(row.mode)} for {whom}{followed(row.followers)}{_but(row)}{does}"


def _but(row: ModeInfo) -> str:
    differs = ", ".join(f"{clean(name)}: {clean(other)}" for name, other in row.differs.items())
    return f" (but {differs})" if differs else ""


def check_note(row: Mapping[str, Any]) -> str:
    """Return who may decide what no rule covers; nothing where no person is asked."""
    from irons_policy.remedy import note

    return note(row["cause"], row["mode"]) if row["cause"] == "uncovered" and not row["allowed"] else ""


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
        inherited = f"{clean(row.inherited)} (inherited)" if row.inherited else "inherited"
        return f"mode: {clean(row.before) or inherited} -> {clean(row.pattern)}"
    private = f" --private {clean(','.join(row.private))}" if row.private else ""
    note = f"  # {clean(row.note)}" if row.note else ""
    until = f" until {clean(row.until)}" if row.until else ""
    before = f" (now {clean(row.before)})" if row.before else ""
    return (
        f"{_SIGNS.get(row.change, '?')} {clean(row.list)} {clean(row.pattern)}{private}{until}{before}{note}"
    )


def policy(row: PolicyRow) -> str:
    """Return a policy as the text of its file."""
    from irons_plugins.egress.policy_file import render_policy

    return render_policy(row.mode, row.rules, row.never or ()).rstrip("\n")
