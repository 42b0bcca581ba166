"""Sandboxes as rows: who they are, what they are made of, and the state they are in."""

from __future__ import annotations

import json
import re
import secrets
import sqlite3
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from irons.wire_values import LONGEST_NOTE, SANDBOX_ID, SANDBOX_NAME
from irons_local import times
from irons_local.control.schema.errors import bad, missing
from irons_local.control.schema.labels import LABELS, checked_labels
from irons_local.control.schema.schemas import Schema, optional, text

CREATING = "creating"
STARTING = "starting"
RUNNING = "running"
READY = "ready"
STOPPING = "stopping"
STOPPED = "stopped"
ERROR = "error"

BUSY = (CREATING, STARTING, STOPPING)
"""States in which a task of the control plane is at work; without one they are left-overs of a crash."""

_NAME = re.compile(SANDBOX_NAME, re.ASCII)
NAME = f"^([a-z0-9]([a-z0-9-]{{0,61}}[a-z0-9])?|{SANDBOX_ID})$"
"""A sandbox's name or id in a path, as the API's description has it."""


class Option(NamedTuple):
    """What the request to create a sandbox may say of a column.

    Attributes:
        schema: what it looks like in the request.
        read: makes the column's value of what was sent; of None where nothing was.
        shown: the sandbox's status has it, by the same name, where it is not empty.
    """

    schema: Schema
    read: Callable[[Any], Any]
    shown: bool


def _option(
    schema: Schema, read: Callable[[Any], Any] = lambda sent: sent, *, shown: bool = False
) -> Mapping[str, Option]:
    """Say of a column that the request to create a sandbox may set it."""
    return {"option": Option(schema, read, shown)}


def _at_most(kind: str, most: int) -> Schema:
    return {"type": [kind, "null"], "minimum": 0, "maximum": most}


_ENTRYPOINT: Schema = {"type": "boolean", "description": "Run the image's entrypoint at each start."}

_MEMBER: Schema = optional(
    text(63, description="The member of a fleet to make it on; without one the engine chooses.")
)


def plain(sent: str | None) -> str:
    """A text on one line, without control, bidi and other format characters."""
    shown = "".join(
        " " if each.isspace() else each for each in sent or "" if each.isspace() or each.isprintable()
    )
    return shown.strip()


@dataclass(frozen=True, slots=True)
class StoredSandbox:
    """One sandbox as the store has it.

    Attributes:
        id: `sb_` and 16 lower-case hexadecimal digits, never used again; the name of its cell too.
        name: a DNS label, unique among the sandboxes there are.
        status: one of the contract's states.
        reason: why it is in `error`, or stopped by itself; None else.
        deleting: it is being removed.
        public_key: text of the OpenSSH public key file it was made with.
        engine: name of its engine.
        image: name of its image; "" was the default one.
        cpus: limit in processors; None: no limit.
        memory: limit in bytes.
        disk: limit in bytes.
        mode: its own egress mode; None follows the account.
        ssh_port: its TCP port for SSH on this machine, kept for life.
        username: who to be by SSH, once it is made.
        host_keys: its public host keys, once it is made.
        created_at: microseconds since 1970.
        updated_at: microseconds since 1970.
        labels: its labels, by key.
        entrypoint: it runs the entrypoint of its image at each start.
        note: a text of whoever created it.
        snapshot: id of the snapshot that it is being made from; "" for none, and once it is made.
        creator: id of the API key that created it; "" where that was by the unix socket, or before keys had roles.
        member: the member of a fleet that it was to be made on; "" left that to its engine.
    """

    id: str
    name: str
    status: str
    reason: str | None
    deleting: bool
    public_key: str
    engine: str
    image: str = field(metadata=_option(optional(text(255)), lambda sent: sent or ""))
    cpus: float | None = field(metadata=_option(_at_most("number", 4096)))
    memory: int | None = field(metadata=_option(_at_most("integer", 2**50)))
    disk: int | None = field(metadata=_option(_at_most("integer", 2**60)))
    mode: str | None
    ssh_port: int | None
    username: str | None
    host_keys: tuple[str, ...]
    created_at: int
    updated_at: int
    labels: Mapping[str, str] = field(
        default_factory=dict, metadata=_option(LABELS, lambda sent: checked_labels(sent or {}))
    )
    entrypoint: bool = field(default=False, metadata=_option(_ENTRYPOINT, bool))
    note: str = field(default="", metadata=_option(text(LONGEST_NOTE), plain, shown=True))
    snapshot: str = ""
    creator: str = ""
    member: str = field(default="", metadata=_option(_MEMBER, lambda sent: sent or ""))


OPTIONS: Mapping[str, Option] = {
    each.name: each.metadata["option"] for each in fields(StoredSandbox) if "option" in each.metadata
}
"""What the request to create a sandbox may say of its columns, by their names."""

_COLUMNS = ", ".join(each.name for each in fields(StoredSandbox))


def asked(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns that a request to create a sandbox sets.

    Raises:
        HttpError: a label is not one.
    """
    return {name: option.read(body.get(name)) for name, option in OPTIONS.items()}


def shown(sandbox: StoredSandbox) -> dict[str, Any]:
    """Return the options that a sandbox's status has, where they are not empty."""
    return {name: value for name in OPTIONS if OPTIONS[name].shown and (value := getattr(sandbox, name))}


def is_name(name: str) -> bool:
    """Whether a text is a DNS label (RFC 1123) in lower case, as sandboxes and snapshots are named."""
    return _NAME.fullmatch(name) is not None


def checked_name(name: str) -> str:
    """A sandbox's name: a DNS label (RFC 1123) in lower case.

    Raises:
        HttpError: it is not one.
    """
    if not is_name(name):
        raise bad(
            "a sandbox name is 1 to 63 characters: lower-case letters, digits and hyphens, "
            "with no hyphen at either end"
        )
    return name


def new_id() -> str:
    """An id that no sandbox ever had."""
    return f"sb_{secrets.token_hex(8)}"


def insert(connection: sqlite3.Connection, sandbox: StoredSandbox) -> None:
    """Write a new sandbox, and record its name for its events.

    Raises:
        sqlite3.IntegrityError: the name is taken.
    """
    values: dict[str, object] = {column: getattr(sandbox, column) for column in _COLUMNS.split(", ")}
    values["host_keys"] = "\n".join(sandbox.host_keys)
    values["labels"] = json.dumps(dict(sandbox.labels))
    marks = ", ".join("?" * len(values))
    sql = f"INSERT INTO sandboxes ({_COLUMNS}) VALUES ({marks})"  # noqa: S608 (names of ours)
    connection.execute(sql, tuple(values.values()))
    connection.execute(
        "INSERT INTO subjects (sandbox, name, creator) VALUES (?, ?, ?)",
        (sandbox.id, sandbox.name, sandbox.creator),
    )


def all_of(connection: sqlite3.Connection) -> list[StoredSandbox]:
    """Every sandbox, by name."""
    sql = f"SELECT {_COLUMNS} FROM sandboxes ORDER BY name"  # noqa: S608 (names of ours)
    return [_sandbox(row) for row in connection.execute(sql)]


def count(connection: sqlite3.Connection, *, following: bool) -> int:
    """Count all sandboxes; with `following` only those that follow the account's mode."""
    where = " WHERE mode IS NULL" if following else ""
    return int(connection.execute(f"SELECT count(*) FROM sandboxes{where}").fetchone()[0])  # noqa: S608 (text of ours)


def was_any(connection: sqlite3.Connection) -> bool:
    """Tell whether there is a sandbox, or events of one that there was."""
    sql = "SELECT EXISTS (SELECT 1 FROM sandboxes) OR EXISTS (SELECT 1 FROM subjects)"
    return bool(connection.execute(sql).fetchone()[0])


def find(connection: sqlite3.Connection, name: str) -> StoredSandbox | None:
    """The sandbox of a name or an id, if there is one."""
    sql = f"SELECT {_COLUMNS} FROM sandboxes WHERE name = ? OR id = ?"  # noqa: S608 (names of ours)
    row = connection.execute(sql, (name, name)).fetchone()
    return None if row is None else _sandbox(row)


def get(connection: sqlite3.Connection, name: str) -> StoredSandbox:
    """The sandbox of a name or an id.

    Raises:
        HttpError: there is none.
    """
    found = find(connection, name)
    if found is None:
        raise missing(f"no sandbox is named {name!r}{_gone(connection, name)}")
    return found


def note_end(connection: sqlite3.Connection, identity: str, why: str) -> None:
    """Record why a sandbox is destroyed without a request; later requests for it get the reason."""
    connection.execute("UPDATE subjects SET gone_why = ? WHERE sandbox = ?", (why, identity))


def _gone(connection: sqlite3.Connection, name: str) -> str:
    """Why there is no sandbox of this name any more, where that was noted of the last one."""
    sql = (
        "SELECT gone_why, gone_at FROM subjects WHERE (name = ? OR sandbox = ?) AND gone_at IS NOT NULL "
        "ORDER BY gone_at DESC LIMIT 1"
    )
    row = connection.execute(sql, (name, name)).fetchone()
    if row is None or row["gone_why"] is None:
        return ""
    return f"; it was {row['gone_why']}, at {times.rfc3339(row['gone_at'])}"


def change(
    connection: sqlite3.Connection, identity: str, only: Collection[str] | None = None, **values: Any
) -> StoredSandbox | None:
    """Change columns of a sandbox, if it is in one of the states `only` (None: in any).

    Returns:
        The sandbox as it now is, or None where it is gone or in another state.
    """
    if "host_keys" in values:
        values["host_keys"] = "\n".join(values["host_keys"])
    values["updated_at"] = times.now()
    settings = ", ".join(f"{column} = :{column}" for column in values)
    guard = "" if only is None else f" AND status IN ({', '.join(repr(state) for state in only)})"
    sql = f"UPDATE sandboxes SET {settings} WHERE id = :identity{guard} RETURNING {_COLUMNS}"  # noqa: S608 (names of ours)
    row = connection.execute(sql, {**values, "identity": identity}).fetchone()
    return None if row is None else _sandbox(row)


def remove(connection: sqlite3.Connection, identity: str) -> None:
    """Forget a sandbox and its rules; its events stay until retention takes them."""
    connection.execute("DELETE FROM rules WHERE sandbox = ?", (identity,))
    connection.execute("DELETE FROM unasked WHERE sandbox = ?", (identity,))
    connection.execute("DELETE FROM terms WHERE sandbox = ?", (identity,))
    connection.execute("DELETE FROM holds WHERE sandbox = ?", (identity,))
    connection.execute("DELETE FROM sandboxes WHERE id = ?", (identity,))
    connection.execute("UPDATE subjects SET gone_at = ? WHERE sandbox = ?", (times.now(), identity))


def hold(connection: sqlite3.Connection, identity: str) -> None:
    """Note that a sandbox ends with the client that made it."""
    connection.execute("INSERT INTO holds (sandbox) VALUES (?)", (identity,))


def held(connection: sqlite3.Connection) -> frozenset[str]:
    """The ids of the sandboxes that end with their clients."""
    return frozenset(row["sandbox"] for row in connection.execute("SELECT sandbox FROM holds"))


def release(connection: sqlite3.Connection, identity: str) -> bool:
    """Let a sandbox live on without its client; False where it did already."""
    done = connection.execute("DELETE FROM holds WHERE sandbox = ?", (identity,))
    return done.rowcount == 1


def _sandbox(row: sqlite3.Row) -> StoredSandbox:
    values = dict(row)
    values["deleting"] = bool(values["deleting"])
    values["host_keys"] = tuple(filter(None, values["host_keys"].split("\n")))
    values["labels"] = json.loads(values["labels"])
    values["entrypoint"] = bool(values["entrypoint"])
    return StoredSandbox(**values)
