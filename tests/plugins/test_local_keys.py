"""What `irons local` says of API keys."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from functools import partial

import pytest

from irons.testing import Runner
from irons_local.control.store import keys
from irons_local.control.store.database import Store
from irons_local.paths import Paths


def test_local_status_says_what_keys_may_do(run_irons: Runner) -> None:
    """It counts the API keys by role and names those that may do all, also while nothing runs; without keys it says nothing."""
    assert "API key" not in run_irons("local", "status").err
    paths = Paths.of(run_irons.env).create()
    with closing(Store(paths.database)) as store:
        for label, role in (("laptop", "admin"), ("ci\x1b[2J", "admin"), ("bob", "user")):
            store.write_now(partial(keys.create, label=label, role=role))
    said = run_irons("local", "status").err
    assert "API keys: 2 admin, 1 user\n" in said
    (line,) = [each for each in said.splitlines() if "may do all" in each]
    assert "laptop, ci" in line
    assert "bob" not in line
    assert "\x1b" not in line


@pytest.mark.parametrize("version", [1, 99])
def test_local_status_reads_no_database_of_another_version(run_irons: Runner, version: int) -> None:
    """While no daemon runs, the keys in a file that an older or a newer irons made are not its to read."""
    paths = Paths.of(run_irons.env).create()
    with closing(Store(paths.database)) as store:
        store.write_now(partial(keys.create, label="laptop", role="admin"))
    assert "laptop" in run_irons("local", "status").ok().err
    with closing(sqlite3.connect(paths.database)) as other:
        other.execute(f"PRAGMA user_version = {version}")
    before = paths.database.read_bytes()
    assert "API key" not in run_irons("local", "status").ok().err
    assert paths.database.read_bytes() == before
