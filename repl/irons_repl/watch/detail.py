"""Texts that the live view shows in place of its lists: an event as a whole, and the keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from irons.text import clean, local_time
from irons_policy.event import Event
from irons_policy.remedy import note
from irons_repl.watch.listing import WORDS
from irons_repl.watch.model import verdict_of

if TYPE_CHECKING:
    from irons_policy.policy import Decision
    from irons_repl.watch.standing import KnownRules

KEYS = (
    ("a", "allow the chosen host: the rule and its scope are asked first"),
    ("d", "deny it, likewise"),
    ("u", "undo the last change made here, if nothing has changed that rule since"),
    ("y", "answer a question; any other key drops it"),
    ("!, F2", "open the questions of mode ask, with the keys that are shown there"),
    ("up, down", "choose; PgUp, PgDn, Home, End go further"),
    ("Tab", "switch between hosts and log; the log stands still until End"),
    ("Enter", "show an event as a whole"),
    ("/", "show only what has this text; Esc shows all again"),
    ("s", "sort: undecided, busiest, latest, by name"),
    ("space", "hold the picture, and let it go"),
    ("Ctrl-Z", "suspend the view"),
    ("q", "leave"),
    ("counts", "are of the last 10,000 events from before, and of all since"),
    ("?", "attempts were denied, or would be, and no rule decides them"),
    ("+  -", "a rule allows the host, or denies it"),
)


def about_keys() -> tuple[tuple[str, str], ...]:
    """Return each key, and each mark, with what it means."""
    return KEYS


def about_event(event: Event, standing: KnownRules) -> tuple[tuple[str, str], ...]:
    """Return what is known of an event, as titles and texts, and the command that would allow it."""
    decision = standing.decision(event)
    rule = event.rule
    now = _now(decision, standing) if decision is not None else ""
    told = (
        ("time", local_time(event.time) if event.time else ""),
        ("sandbox", event.sandbox),
        ("host", event.host),
        ("port", str(event.port) if event.port is not None else ""),
        ("protocol", event.protocol),
        ("verdict", WORDS[verdict_of(event)]),
        ("to allow it", standing.fix(event) if verdict_of(event) != "allowed" else ""),
        ("mode", event.mode),
        ("rule", rule),
        ("rule now", now),
        ("cause", event.cause),
        ("reason", event.reason),
        ("note", note(event.cause)),
        ("count", f"{event.count:,}" if event.count > 1 else ""),
        ("outcome", event.outcome),
        ("ended", event.ended),
        ("address", event.address),
        ("bytes", _bytes(event)),
        ("duration", f"{event.duration_ms / 1000:,.1f} s" if event.duration_ms is not None else ""),
        ("id", str(event.id) if event.id is not None else ""),
        ("connection", event.connection),
    )
    return tuple((title, clean(text)) for title, text in told if text)


def _bytes(event: Event) -> str:
    if not event.bytes_in and not event.bytes_out:
        return ""
    return f"{event.bytes_out or 0:,} out, {event.bytes_in or 0:,} in"


def _now(decision: Decision, standing: KnownRules) -> str:
    if not decision.rule:
        return "none"
    end = standing.end_of(decision)
    until = "" if end is None else ", until its sandbox stops"
    if end is not None and end.at is not None:
        until = f", until {local_time(datetime.fromtimestamp(end.at / 1_000_000, UTC))}"
    return f"{decision.rule} {'allows' if decision.list == 'allow' else 'denies'} it{until}"
