"""What the change log says of a sandbox: how it was created, who may enter it, and how long it may live."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from typing import Any

from irons_local import times
from irons_local.control.sandbox.access import AccessKey, keys_of
from irons_local.control.store.changelog import What, record, record_rule
from irons_local.control.store.sandboxes import StoredSandbox
from irons_local.control.store.terms import Terms
from irons_policy.rules import RuleChange

_LONGEST_COMMENT = 200


def record_created(
    connection: sqlite3.Connection,
    sandbox: StoredSandbox,
    rules: Iterable[RuleChange],
    given: Terms | None,
    variables: Mapping[str, str],
    *,
    held: bool,
    origin: str = "",
) -> None:
    """Record that a sandbox was created, with its rules and the keys that open it; of variables the names alone.

    `origin` is what people call the sandbox or the snapshot that it is a copy of.
    """
    about: dict[str, Any] = {
        "status": sandbox.status,
        "engine": sandbox.engine,
        "image": sandbox.image,
        "mode": sandbox.mode,
        "cpus": sandbox.cpus,
        "memory": sandbox.memory,
        "disk": sandbox.disk,
        "labels": dict(sandbox.labels),
        "note": sandbox.note,
        "entrypoint": sandbox.entrypoint,
        "member": sandbox.member,
        "held": held,
        "from": origin,
        "environment": sorted(variables),
        "access": [key.fingerprint for key in keys_of(sandbox.public_key)],
        **({} if given is None else _terms(given)),
    }
    after = {name: value for name, value in about.items() if value not in (None, "", False, {}, [])}
    record(connection, What.CREATED, sandbox=sandbox, after=after)
    for each in rules:
        record_rule(connection, each, sandbox)


def record_access(connection: sqlite3.Connection, before: StoredSandbox, after: StoredSandbox) -> None:
    """Record each public key that opens a sandbox from now on, and each that no longer does."""
    was, now = ({key.id: key for key in keys_of(each.public_key)} for each in (before, after))
    for key in now.keys() - was.keys():
        record(
            connection,
            What.ACCESS_ADDED,
            sandbox=after,
            subject=now[key].fingerprint,
            after=_access(now[key]),
        )
    for key in was.keys() - now.keys():
        record(
            connection,
            What.ACCESS_REMOVED,
            sandbox=after,
            subject=was[key].fingerprint,
            before=_access(was[key]),
        )


def record_terms(connection: sqlite3.Connection, sandbox: StoredSandbox, before: Terms, after: Terms) -> None:
    """Record how long a sandbox may live and be idle, where that changed."""
    was, now = _terms(before), _terms(after)
    if was != now:
        record(connection, What.TERMS, sandbox=sandbox, before=was, after=now)


def _terms(terms: Terms) -> Mapping[str, Any]:
    about = {
        "ttl": terms.ttl,
        "rm": terms.remove,
        "idle_stop": terms.idle_stop,
        "ends_at": None if terms.ends_at is None else times.rfc3339(terms.ends_at),
    }
    return {name: value for name, value in about.items() if value not in (None, False)}


def _access(key: AccessKey) -> Mapping[str, str]:
    return {"id": key.id, "type": key.type, "comment": key.comment[:_LONGEST_COMMENT]}
