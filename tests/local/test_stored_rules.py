"""Rules in the database: rows of older versions are read as the rules they are, and compared as rules."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from irons_local.control.store import rules
from irons_local.control.store.database import Store
from irons_local.control.store.rules import ACCOUNT
from irons_policy.policy import Policy
from irons_policy.rules import make_rule

OLD_ROWS = (
    ("db.example:5432", "allow", '["192.168.0.0/16", "10.0.0.5"]', 0, "the database", 7),
    ("*.github.io", "allow", "[]", 1, None, 8),
    ("xn--bcher-kva.example", "deny", "[]", 0, None, 9),
)
"""Rows as version 0.2.0 wrote them: private networks in the order they were typed in, no note as NULL."""


@pytest.fixture
def old(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    """The connection of a store with rows of an older version, for the account."""
    with closing(Store(tmp_path / "irons.db")) as store:
        found: list[sqlite3.Connection] = []
        store.write_now(found.append)
        (connection,) = found
        connection.executemany(
            "INSERT INTO rules (sandbox, pattern, list, private, broad, note, created_at) VALUES ('', ?, ?, ?, ?, ?, ?)",
            OLD_ROWS,
        )
        yield connection


def test_rows_of_older_versions_are_rules(old: sqlite3.Connection) -> None:
    """Each row is the rule that it was, with its note and time; the gateway's policy has all of it but the note."""
    found = rules.of(old, ACCOUNT)
    assert found == [
        make_rule("db.example:5432", "allow", private=["10.0.0.5", "192.168.0.0/16"], note="the database"),
        make_rule("*.github.io", "allow", broad=True),
        make_rule("bücher.example", "deny"),
    ]
    assert [rule.created_at for rule in found] == [7, 8, 9]
    (policy,) = rules.policies_of(old, [None], {})
    assert policy.to_json()["rules"][0] == {
        "pattern": "db.example:5432",
        "list": "allow",
        "scope": "account",
        "private": ["10.0.0.5", "192.168.0.0/16"],
        "broad": False,
    }
    assert Policy.from_json(policy.to_json()) == policy


def test_the_same_rule_in_another_order_changes_nothing(old: sqlite3.Connection) -> None:
    """A stored rule whose private networks come in another order is the same rule: added, replaced and by its revision."""
    before = rules.of(old, ACCOUNT)
    same = make_rule("db.example:5432", "allow", private=["10.0.0.5", "192.168.0.0/16"], note="the database")
    revision = rules.revision("warn", before)
    assert not rules.put(old, ACCOUNT, same)
    assert rules.replace(old, ACCOUNT, [same, *before[1:]]) == ()
    assert rules.revision("warn", [same, *before[1:]]) == revision
    assert rules.of(old, ACCOUNT)[0].created_at == 7
    assert rules.put(old, ACCOUNT, make_rule("db.example:5432", "allow"))


def test_a_list_decides_whose_its_rules_are(old: sqlite3.Connection) -> None:
    """Rules are stored in the scope of the list they are put in, no matter what scope they were made with."""
    rule = make_rule("own.example", "allow")
    (change,) = rules.replace(old, "id", [rule])
    assert (change.kind, change.rule.scope) == ("added", "sandbox")
    assert not rules.put(old, "id", rule)
    assert rules.replace(old, "id", [rule]) == ()
