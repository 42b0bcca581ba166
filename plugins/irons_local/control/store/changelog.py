"""The change log: each change of rules, modes, keys and sandboxes with its author, in the transaction that makes the change."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, NamedTuple

from irons_local import times
from irons_local.control.schema.errors import missing
from irons_local.control.store.database import Store
from irons_local.control.store.sandboxes import StoredSandbox
from irons_policy.rules import Rule, RuleChange

PAGE = 1_000
"""Changes in one answer, where the request does not say how many."""

_LONGEST = 500
"""Characters of a subject or a reason; both may hold a person's words."""

_LARGEST = 16_384
"""Characters of a state before or after, as JSON; of longer lists the first items are kept. The longest rule is below that."""


class What(StrEnum):
    """The kinds of changes."""

    RULE_ADDED = "rule-added"
    RULE_CHANGED = "rule-changed"
    RULE_REMOVED = "rule-removed"
    RULE_ENDED = "rule-ended"
    MODE_SET = "mode-set"
    POLICY_APPLIED = "policy-applied"
    KEY_MADE = "key-made"
    KEY_REVOKED = "key-revoked"
    ACCESS_ADDED = "access-added"
    ACCESS_REMOVED = "access-removed"
    CREATED = "sandbox-created"
    STARTED = "sandbox-started"
    STOPPED = "sandbox-stopped"
    DESTROYED = "sandbox-destroyed"
    FAILED = "sandbox-failed"
    TERMS = "terms-changed"
    RELEASED = "hold-released"
    SNAPSHOT_MADE = "snapshot-made"
    SNAPSHOT_REMOVED = "snapshot-removed"
    RESTORED = "sandbox-restored"
    ANSWERED = "question-answered"
    QUESTION_ENDED = "question-ended"
    MEMBER_ADDED = "member-added"
    MEMBER_JOINED = "member-joined"
    MEMBER_REMOVED = "member-removed"


class Origin(NamedTuple):
    """Who asks for a change; without `uid` and `key_id` it is the control plane itself.

    Attributes:
        uid: the user at the other end of the unix socket (SO_PEERCRED).
        key_id: the id of the API key.
        key_label: the label of the API key, as it is now.
        face: the kind of client, as the client claims it.
        request: the id of the request.
        pid: the process at the other end of the unix socket; not recorded.
        role: what the API key may do, one of `KEY_ROLES`; not recorded.
    """

    uid: int | None = None
    key_id: str | None = None
    key_label: str | None = None
    face: str = ""
    request: str = ""
    pid: int | None = None
    role: str = "admin"

    @property
    def owner(self) -> str:
        """The id of a key that may do only with what it created; empty for any other."""
        return self.key_id or "" if self.role == "user" else ""


ITSELF: Final = Origin()
"""The control plane."""

ORIGIN: ContextVar[Origin] = ContextVar("origin", default=ITSELF)
"""Who asked for what runs now; tasks and store transactions have the origin of the code that began them."""

RECORDED: ContextVar[int] = ContextVar("recorded", default=0)
"""The id of the last change that a transaction recorded."""


def record(
    connection: sqlite3.Connection,
    what: What,
    *,
    sandbox: StoredSandbox | None = None,
    subject: str = "",
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str = "",
    origin: Origin | None = None,
) -> None:
    """Record a change in the transaction that makes it.

    Args:
        connection: in a write transaction.
        what: the kind of change.
        sandbox: the changed sandbox; None means all sandboxes.
        subject: what was changed: a pattern, a fingerprint, the label of a key.
        before: the state before; None where there was none. Of long lists in it the first items are kept, and `left_out` counts the others.
        after: the state then, likewise; None where nothing is left.
        reason: why, for changes that nothing asked for.
        origin: who asked for it; None is the origin of the code that runs now.
    """
    origin = origin or ORIGIN.get()
    owner = _owner(origin, sandbox)
    done = connection.execute(
        "INSERT INTO changes (owner, number, at, what, uid, key_id, key_label, face, request, sandbox, name, subject, before, after, reason) "
        "VALUES (?, (SELECT ifnull(max(number), 0) + 1 FROM changes WHERE owner = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            owner,
            owner,
            times.now(),
            what.value,
            origin.uid,
            origin.key_id,
            origin.key_label,
            origin.face,
            origin.request,
            "" if sandbox is None else sandbox.id,
            "" if sandbox is None else sandbox.name,
            subject[:_LONGEST],
            None if before is None else _state(before),
            None if after is None else _state(after),
            reason[:_LONGEST],
        ),
    )
    RECORDED.set(done.lastrowid or 0)


def record_rule(connection: sqlite3.Connection, change: RuleChange, sandbox: StoredSandbox | None) -> None:
    """Record the change of one rule."""
    record(
        connection,
        What(f"rule-{change.kind}"),
        sandbox=sandbox,
        subject=change.rule.pattern.text,
        before=_rule(change.before),
        after=_rule(change.after),
    )


def record_end(
    connection: sqlite3.Connection, rule: Rule, sandbox: StoredSandbox | None, reason: str
) -> None:
    """Record that a rule has ended by itself."""
    subject, before = rule.pattern.text, _rule(rule)
    record(
        connection,
        What.RULE_ENDED,
        sandbox=sandbox,
        subject=subject,
        before=before,
        reason=reason,
        origin=ITSELF,
    )


def record_mode(
    connection: sqlite3.Connection, before: str | None, after: str | None, sandbox: StoredSandbox | None
) -> None:
    """Record the change of a mode; None is that of a sandbox that follows all sandboxes' mode."""
    record(connection, What.MODE_SET, sandbox=sandbox, before={"mode": before}, after={"mode": after})


def keep_only(store: Store, most: int) -> None:
    """Keep no more than the newest changes of each owner: an insert removes what is beyond them, in its own transaction.

    So a key of the role `user` makes only its own changes go, however many it makes.

    Args:
        store: the database; the limit lasts until it is closed.
        most: how many of each.
    """
    # A trigger takes no parameters.
    removes = f"DELETE FROM changes WHERE owner = NEW.owner AND number <= NEW.number - {most:d}"  # noqa: S608 (a number)
    trigger = f"CREATE TEMP TRIGGER keep_changes AFTER INSERT ON main.changes BEGIN {removes}; END"
    store.write_now(lambda connection: connection.execute(trigger))


@dataclass(frozen=True, slots=True)
class ChangeQuery:
    """Which changes are wanted.

    Attributes:
        name: the name or id of a sandbox that there is or was; None is all, those for all sandboxes included.
        after: only changes with a greater id (the page token).
        since: only changes at or after this time, microseconds since 1970.
        until: only changes at or before this time.
        limit: only the newest so many; None is all.
        size: changes in one answer at most.
    """

    name: str | None = None
    after: int = 0
    since: int | None = None
    until: int | None = None
    limit: int | None = None
    size: int = PAGE


@dataclass(frozen=True, slots=True)
class ChangePage:
    """One answer.

    Attributes:
        changes: in order of their ids, as the wire has them.
        token: the id up to which everything was looked at; 0 where there is nothing yet.
        rotated: how many changes after the query's token, up to this one, made room for others; of all scopes.
        ever: how many changes there ever were; of all scopes.
    """

    changes: list[dict[str, Any]]
    token: int
    rotated: int = 0
    ever: int = 0


def page(connection: sqlite3.Connection, query: ChangeQuery) -> ChangePage:
    """Return the next page of what a query asks for.

    Raises:
        HttpError: no sandbox has, or had, that name.
    """
    where, values = _conditions(connection, query)
    last = _last(connection)
    start = query.after
    if query.limit is not None:
        sql = f"SELECT id FROM changes WHERE {where} ORDER BY id DESC LIMIT 1 OFFSET :limit"  # noqa: S608 (text of ours)
        row = connection.execute(sql, {**values, "limit": query.limit}).fetchone()
        start = max(start, 0 if row is None else int(row[0]))
    sql = f"SELECT * FROM changes WHERE {where} ORDER BY id LIMIT :size"  # noqa: S608 (text of ours)
    rows = connection.execute(sql, {**values, "after": start, "size": query.size}).fetchall()
    token = int(rows[-1]["id"]) if len(rows) == query.size else max(last, query.after)
    return ChangePage(
        [_shown(row) for row in rows], token, _rotated(connection, query.after, min(token, last)), last
    )


def may_have_had(connection: sqlite3.Connection, kinds: Sequence[What]) -> bool:
    """Tell whether there was a change of one of these kinds; where changes have made room for others there may have been one."""
    marks = ", ".join("?" * len(kinds))
    sql = f"SELECT EXISTS (SELECT 1 FROM changes WHERE what IN ({marks}))"  # noqa: S608 (marks alone)
    if connection.execute(sql, tuple(kinds)).fetchone()[0]:
        return True
    return _rotated(connection, 0, _last(connection)) > 0


def _last(connection: sqlite3.Connection) -> int:
    """Return the last id that was given."""
    given = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'changes'").fetchone()
    return 0 if given is None else int(given[0])


def _rotated(connection: sqlite3.Connection, after: int, upto: int) -> int:
    """Return how many changes between two tokens are gone; ids were given without gaps."""
    if upto <= after:
        return 0
    left = connection.execute(
        "SELECT count(*) FROM changes WHERE id > ? AND id <= ?", (after, upto)
    ).fetchone()
    return upto - after - int(left[0])


def _owner(origin: Origin, sandbox: StoredSandbox | None) -> str:
    """Return whose change it is: that of the key of the role `user` that asked for it, or of the key that created the sandbox which brought it about."""
    if origin.owner or origin.uid is not None or origin.key_id is not None or sandbox is None:
        return origin.owner
    return sandbox.creator


def _conditions(connection: sqlite3.Connection, query: ChangeQuery) -> tuple[str, dict[str, Any]]:
    values: dict[str, Any] = {"after": query.after}
    parts = ["id > :after"]
    if query.name is not None:
        values["sandbox"] = _sandbox(connection, query.name)
        parts.append("sandbox = :sandbox")
    for name, column, sign in (("since", query.since, ">="), ("until", query.until, "<=")):
        if column is not None:
            values[name] = column
            parts.append(f"at {sign} :{name}")
    return " AND ".join(parts), values


def _sandbox(connection: sqlite3.Connection, name: str) -> str:
    """Return the id of the sandbox that has a name, else of the last one that had it and still has changes."""
    asked = {"name": name}
    live = connection.execute("SELECT id FROM sandboxes WHERE name = :name OR id = :name", asked).fetchone()
    if live is None:
        live = connection.execute(
            "SELECT sandbox FROM changes WHERE sandbox <> '' AND (name = :name OR sandbox = :name) "
            "ORDER BY id DESC LIMIT 1",
            asked,
        ).fetchone()
    if live is None:
        raise missing(f"no sandbox is named {name!r}")
    return str(live[0])


def _rule(rule: Rule | None) -> Mapping[str, Any] | None:
    if rule is None:
        return None
    until = None if rule.until is None else rule.until.text
    more = {"private": list(rule.pins), "broad": rule.broad, "note": rule.note, "until": until}
    return {"list": rule.list, **{name: value for name, value in more.items() if value}}


def _state(state: Mapping[str, Any]) -> str:
    """Return a state as JSON, with only the first items of long lists."""
    text, kept = json.dumps(state), state
    lists: Mapping[str, Sequence[Any]] = {
        name: each for name, each in state.items() if isinstance(each, list)
    }
    most = max(map(len, lists.values()), default=0)
    while len(text) > _LARGEST and most > 0:
        most //= 2
        left_out = sum(max(0, len(each) - most) for each in lists.values())
        kept = {**state, **{name: each[:most] for name, each in lists.items()}, "left_out": left_out}
        text = json.dumps(kept)
    return text


def _whole(text: str) -> Any:
    return json.loads(text)


_FIELDS: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "uid": ("uid", int),
    "key_id": ("key_id", str),
    "key_label": ("key_label", str),
    "claimed_face": ("face", str),
    "request": ("request", str),
    "sandbox_name": ("name", str),
    "sandbox_id": ("sandbox", str),
    "subject": ("subject", str),
    "before": ("before", _whole),
    "after": ("after", _whole),
    "reason": ("reason", str),
}
"""Fields that a change on the wire has only where there is a value: their columns, and how each is read."""


def _shown(row: sqlite3.Row) -> dict[str, Any]:
    by = "uid" if row["uid"] is not None else "key" if row["key_id"] is not None else "irons"
    change = {
        "type": "change",
        "id": row["id"],
        "timestamp": times.rfc3339(row["at"]),
        "what": row["what"],
        "by": by,
    }
    for name, (column, read) in _FIELDS.items():
        value = row[column]
        if value not in (None, ""):
            change[name] = read(value)
    return change
