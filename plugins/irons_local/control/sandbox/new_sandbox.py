"""A sandbox that is to be made: its row, and what is stored with it in the same transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from irons_local.control.egress import locked
from irons_local.control.sandbox.change_records import record_created
from irons_local.control.schema.errors import bad, conflict
from irons_local.control.schema.rules_schema import MOST_NEVER
from irons_local.control.store import rules, sandboxes, snapshots, terms, unasked
from irons_local.control.store.changelog import ORIGIN
from irons_local.control.store.sandboxes import StoredSandbox
from irons_local.control.store.terms import Terms
from irons_policy.patterns import Pattern
from irons_policy.policy import PatternIndex
from irons_policy.rules import Rule


class RequestedSandbox(NamedTuple):
    """A sandbox to make.

    Attributes:
        sandbox: its row.
        rules: its own.
        terms: how long it may live; None for no limit.
        variables: of its sessions and its boot; their values are secrets.
        held: it ends with its client (`holds`).
        origin: what people call the sandbox or the snapshot that it is a copy of.
        never: what no person is asked about in it, with what the snapshot has that it starts from.
    """

    sandbox: StoredSandbox
    rules: Sequence[Rule] = ()
    terms: Terms | None = None
    variables: Mapping[str, str] = {}
    held: bool = False
    origin: str = ""
    never: Sequence[Pattern] = ()


def insert_all(
    connection: sqlite3.Connection, new: Sequence[RequestedSandbox], never: Sequence[Pattern]
) -> None:
    """Store sandboxes with their modes, rules, terms and creator, and record that they were created.

    Args:
        connection: in a write transaction.
        new: what is to be made.
        never: what no person is asked about, `[ask] never`.

    Raises:
        HttpError: a name is taken, the snapshot that one starts from is gone, `never` is too long with the snapshot's, or the API key may not have such a mode or rule.
    """
    closed = PatternIndex((*never, *unasked.of(connection, rules.ACCOUNT)))
    for each in new:
        sandbox = replace(each.sandbox, creator=ORIGIN.get().key_id or "")
        locked.check_mode(sandbox.mode, copied=bool(each.origin))
        locked.check_rules(each.rules, closed)
        if sandbox.snapshot:
            # In this transaction: from now on its removal is refused.
            snapshots.get(connection, sandbox.snapshot)
        try:
            sandboxes.insert(connection, sandbox)
        except sqlite3.IntegrityError:
            raise conflict(f"there is a sandbox named {sandbox.name!r} already") from None
        changed = rules.replace(connection, sandbox.id, each.rules)
        unasked.replace(connection, sandbox.id, each.never)
        if sandbox.snapshot:
            unasked.copy(connection, sandbox.snapshot, sandbox.id)
            if len(unasked.of(connection, sandbox.id)) > MOST_NEVER:
                raise bad(f"never has more than {MOST_NEVER} items together with the snapshot's")
        if each.terms is not None:
            terms.put(connection, each.terms)
        if each.held:
            sandboxes.hold(connection, sandbox.id)
        record_created(
            connection, sandbox, changed, each.terms, each.variables, held=each.held, origin=each.origin
        )
