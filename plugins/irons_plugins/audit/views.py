"""How events are shown to a person."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from irons.client.models.audit import EventUpdate
from irons.terminal.words import verdict_word
from irons.text import clean, local_time

if TYPE_CHECKING:
    from irons_policy.event import Event


LOST = ("unresolved", "unreached")
"""Outcomes of what was let through and not reached."""

_TIMES = "\N{MULTIPLICATION SIGN}"
_NAME = 16
"""Characters of a sandbox's name in a followed line."""
_COLOURS = {"allowed": "green", "blocked": "red", "warn": "yellow"}


def line(event: Event) -> str:
    """Return the line that the wire contract gives an event: `TIMESTAMP  VERDICT  HOST  (mode: MODE)`."""
    # Nothing is called for a host and a mode as they nearly always are: logs are long.
    host, mode = event.host, event.mode
    host = host if host.isprintable() else clean(host)
    mode = f"  (mode: {mode if mode.isprintable() else clean(mode)})" if mode else ""
    time = local_time(event.time) if event.time else "-"
    text = f"{time}  {'ALLOWED' if event.allowed else 'DENIED '}  {host}{mode}"
    # After what the contract has: of what a rule would have refused, of what was let through in vain, and of what was shown before.
    if event.verdict == "warn":
        text += "  (would-deny)"
    if isinstance(event, EventUpdate):
        return f"{text}  ({_became(event)})"
    return f"{text}  ({event.outcome})" if event.outcome in LOST else text


def _became(event: Event) -> str:
    """Return how an event is now that was shown before."""
    told = [clean(event.outcome)] if event.outcome not in ("", "refused") else []
    if event.count > 1:
        told.append(f"{event.count:,} times")
    if event.duration_ms is not None and event.outcome not in LOST and event.allowed:
        told.append(f"after {event.duration_ms / 1000:,.1f} s")
    if event.bytes_in or event.bytes_out:
        told.append(f"{event.bytes_out or 0:,} bytes out, {event.bytes_in or 0:,} in")
    return ", ".join(told) or "changed"


def fields(event: Event) -> str:
    """Return an event as tab-separated fields: time, sandbox, verdict, host, port, count, cause, reason."""
    port = "" if event.port is None else str(event.port)
    why = event.ended if event.outcome in LOST and event.ended else event.reason
    texts = (event.sandbox, _word(event), event.host, port, str(event.count), event.cause, why)
    return "\t".join((local_time(event.time) if event.time else "", *map(clean, texts)))


def live(event: Event, columns: int | None) -> list[tuple[str, str]]:
    """Return the parts of a line that a person follows: time, verdict, host, count, and why, cut to the terminal."""
    return _live(event, columns, "")


def live_of_all(event: Event, columns: int | None) -> list[tuple[str, str]]:
    """Return the same with the sandbox."""
    return _live(event, columns, f"{clean(event.sandbox, limit=_NAME):<{_NAME}}  ")


def _live(event: Event, columns: int | None, sandbox: str) -> list[tuple[str, str]]:
    count = f"  {_TIMES}{event.count:,}" if event.count > 1 else ""
    if isinstance(event, EventUpdate):
        why = _became(event)
    elif event.outcome in LOST:
        why = f"{event.outcome}: {event.ended}" if event.ended else event.outcome
    else:
        why = event.reason
    parts = [
        ("bright_black", f"{clock(event.time)}  "),
        (_COLOURS.get(_verdict(event), ""), f"{_word(event):<10}  "),
        ("", f"{sandbox}{_place(event.host, event.port, event.protocol)}{count}"),
        ("bright_black", f"  {clean(why)}" if why else ""),
    ]
    return cut(parts, columns)


def cut(parts: list[tuple[str, str]], columns: int | None) -> list[tuple[str, str]]:
    """Return the parts of a line, each a style and a text, cut to a terminal's columns; None does not cut."""
    if columns is None:
        return parts
    room = columns
    shown: list[tuple[str, str]] = []
    for style, text in parts:
        shown.append((style, text if len(text) <= room else f"{text[: max(0, room - 1)]}…" if room else ""))
        room = max(0, room - len(text))
    return shown


def clock(time: datetime | None) -> str:
    """Return the time of an event on this machine's clock, with the day where that is another one."""
    if time is None:
        return "--:--:--"
    here = time.astimezone()
    return f"{here:%H:%M:%S}" if here.date() == here.now(here.tzinfo).date() else f"{here:%Y-%m-%d %H:%M:%S}"


def _verdict(event: Event) -> str:
    return event.verdict if event.verdict == "warn" else "allowed" if event.allowed else "blocked"


def _word(event: Event) -> str:
    return verdict_word(_verdict(event))


def _place(host: str, port: int | None, protocol: str) -> str:
    """Return a host with its port, and the protocol where that is not TCP."""
    shown = f"[{clean(host)}]" if ":" in host and port is not None else clean(host)
    named = shown if port is None else f"{shown}:{port}"
    return f"{named}/{clean(protocol)}" if protocol in ("udp", "icmp") else named


def became(row: Mapping[str, Any]) -> str:
    """Return the verdict, or the outcome of what was let through and not reached."""
    return str(row["outcome"]) if row["outcome"] in LOST else verdict(row)


def place(row: Mapping[str, Any]) -> str:
    """Return the host and the port that were tried, and how often where a refusal was repeated."""
    count = f" {_TIMES}{row['count']:,}" if row["count"] > 1 else ""
    return f"{_place(row['host'], row['port'], row['protocol'])}{count}"


def why(row: Mapping[str, Any]) -> str:
    """Return why, and what became of a connection that ended before a server was reached."""
    ended = f" ({row['outcome']})" if row["outcome"] in ("abandoned", "interrupted") else ""
    return f"{reason(row)}{ended}"


def exact(time: object) -> str:
    """Return a time to the second."""
    return local_time(time) if isinstance(time, datetime) else ""


def colour(row: Mapping[str, Any]) -> str:
    """Return the colour of a row's verdict; what was let through and not reached is yellow."""
    if row["verdict"] == "warn" or row.get("outcome") in LOST:
        return "yellow"
    return "green" if row.get("allowed", row["verdict"] == "allowed") else "red"


def outcome(row: Mapping[str, Any]) -> str:
    """Return what became of a connection where the verdict does not say it: it was not reached, or was cut short."""
    return "" if row["outcome"] in ("reached", "refused") else str(row["outcome"])


def reason(row: Mapping[str, Any]) -> str:
    """Return why: of what was let through and not reached how that ended, else what decided."""
    return str(row["ended"] if row["outcome"] in LOST and row["ended"] else row["reason"])


def by_now(now: Mapping[str, Any]) -> dict[str, str]:
    """Return what the rules say by now of an older event, and for which sandboxes."""
    told = f"{verdict_word(str(now['verdict']))} for {clean(str(now['sandbox'] or 'all sandboxes'))}"
    if now["rule"] is None:
        return {"by now": f"{told}: {clean(str(now['reason']))}"}
    opens = f", which opens {clean(str(now['private']))}" if "private" in now else ""
    return {"by now": f"{told} by rule {clean(str(now['rule']))}{opens}"}


def size(row: Mapping[str, Any]) -> str:
    """Return the bytes that went out and came in."""
    return f"{row['bytes_out'] or 0:,} / {row['bytes_in'] or 0:,}"


def verdict(row: Mapping[str, Any]) -> str:
    """Return the verdict's word in a table, where what only mode warn let pass shows as such."""
    if row["verdict"] == "warn":
        return verdict_word("warn")
    return verdict_word("allowed" if row.get("allowed", row["verdict"] == "allowed") else "blocked")
