"""What the v0 API answers, as data; everything is read leniently: unknown fields are ignored, missing ones are empty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any


@dataclass(frozen=True)
class Sandbox:
    """A sandbox as the server tells it."""

    name: str
    status: str
    id: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SshAddress:
    """Where a sandbox's SSH answers. `host_keys` are lines of known_hosts without the host; `cell` is set by the local backend."""

    host: str
    port: int
    username: str
    host_keys: tuple[str, ...] = ()
    cell: str = ""


@dataclass(frozen=True)
class EgressRules:
    """Allow and deny lists; `rules` has the same with what irons' own server knows besides (private, note, covers)."""

    allowed: tuple[str, ...]
    denied: tuple[str, ...]
    mode: str = ""
    rules: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True)
class Event:
    """One outbound connection attempt."""

    time: datetime | None
    sandbox: str
    host: str
    allowed: bool
    verdict: str = ""
    mode: str = ""
    protocol: str = ""
    port: int | None = None
    rule: str = ""
    reason: str = ""
    count: int = 1
    id: int | None = None
    sandbox_id: str = ""
    bytes_in: int | None = None
    bytes_out: int | None = None
    duration_ms: float | None = None
    ended: str = ""
    address: str = ""


@dataclass(frozen=True)
class AuditPage:
    """A part of the audit log and the token that continues it (0: keep the one you have)."""

    events: tuple[Event, ...]
    token: int = 0


def rows_of(answer: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    """Return the objects in a list of an answer; what is none is passed over."""
    rows = answer.get(key)
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def texts_of(value: object) -> tuple[str, ...]:
    """Return a list's members as texts; nothing where it is no list."""
    return tuple(str(item) for item in value) if isinstance(value, list) else ()


def _time(value: object) -> datetime | None:
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    if found.tzinfo is None:
        from datetime import UTC

        return found.replace(tzinfo=UTC)
    return found


def sandbox_of(row: Mapping[str, Any]) -> Sandbox:
    """Read a Status object of the wire contract; unknown fields are ignored, missing ones are empty."""
    metadata = row.get("metadata")
    return Sandbox(
        name=str(row.get("name", "")),
        status=str(row.get("status", "")),
        id=str(row.get("id") or ""),
        created_at=_time(row.get("created_at")),
        updated_at=_time(row.get("updated_at")),
        metadata={str(k): str(v) for k, v in metadata.items()} if isinstance(metadata, dict) else {},
    )


def event_of(row: Mapping[str, Any], sandbox: str) -> Event:
    """Read an audit event; `sandbox` is whose log was asked for, where the event does not say it."""
    get = row.get
    allowed = get("allowed") is True
    count = get("count")
    return Event(
        time=_time(get("timestamp")),
        sandbox=str(get("sandbox_name") or sandbox),
        host=str(get("host") or ""),
        allowed=allowed,
        # A server that tells no verdict tells at least whether the connection passed.
        verdict=str(get("verdict") or ("allowed" if allowed else "blocked")),
        mode=str(get("mode") or ""),
        protocol=str(get("protocol") or ""),
        port=_whole(get("port")),
        rule=str(get("rule") or ""),
        reason=str(get("reason") or ""),
        count=count if isinstance(count, int) else 1,
        id=_whole(get("id")),
        sandbox_id=str(get("sandbox_id") or ""),
        bytes_in=_whole(get("bytes_in")),
        bytes_out=_whole(get("bytes_out")),
        duration_ms=duration if isinstance(duration := get("duration_ms"), int | float) else None,
        ended=str(get("ended") or ""),
        address=str(get("address") or ""),
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None
