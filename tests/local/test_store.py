"""The database: migrated with a backup, never by older code, and one clear line for each fault of it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from irons_local.control.store import database, keys, migrations
from irons_local.control.store.database import Store, StoreError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a test's database is."""
    return tmp_path / "irons.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Store]:
    """An open store."""
    with closing(Store(path)) as made:
        yield made


def _mode(connection: sqlite3.Connection) -> str:
    return str(connection.execute("SELECT mode FROM account").fetchone()[0])


def _deny(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE account SET mode = 'deny'")


def test_what_was_written_is_there_after_a_restart(path: Path) -> None:
    """A write is durable, readers see it at once, and the file is in WAL mode."""
    with closing(Store(path)) as first:
        asyncio.run(first.write(_deny))
        assert asyncio.run(first.read(_mode)) == "deny"
        assert (
            first.write_now(lambda connection: connection.execute("PRAGMA journal_mode").fetchone()[0])
            == "wal"
        )
    with closing(Store(path)) as second:
        assert second.write_now(_mode) == "deny"


def test_work_that_fails_writes_nothing(opened: Store) -> None:
    """A write that raises is rolled back, and the next one works."""

    def fails(connection: sqlite3.Connection) -> None:
        _deny(connection)
        raise ValueError("half way")

    with pytest.raises(ValueError, match="half way"):
        opened.write_now(fails)
    assert opened.write_now(_mode) == "warn"


def test_readers_cannot_write(opened: Store) -> None:
    """Work that was called reading cannot change anything."""
    with pytest.raises(StoreError):
        asyncio.run(opened.read(_deny))


def test_a_migration_keeps_a_backup(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before an old database is changed, a copy of it is put next to it; the data is there afterwards."""
    with closing(Store(path)) as old:
        old.write_now(_deny)
    monkeypatch.setattr(
        database, "MIGRATIONS", (*migrations.MIGRATIONS, "CREATE TABLE fresh (x INTEGER) STRICT;")
    )
    with closing(Store(path)) as new:
        assert new.write_now(_mode) == "deny"
        new.write_now(lambda connection: connection.execute("INSERT INTO fresh VALUES (1)"))
    version = len(migrations.MIGRATIONS)
    with closing(sqlite3.connect(path.with_name(f"irons.db.v{version}.bak"))) as backup:
        assert _mode(backup) == "deny"
        assert backup.execute("PRAGMA user_version").fetchone()[0] == version


@pytest.mark.parametrize("version", [1, 5, 6, 7, 8], ids=["0.1.0", "0.2.0", "labels", "holds", "entrypoint"])
def test_an_older_database_becomes_as_a_fresh_one(
    tmp_path: Path, path: Path, monkeypatch: pytest.MonkeyPatch, version: int
) -> None:
    """A database of a release, or of a commit between two of them, has the tables of a fresh one after one start."""
    with monkeypatch.context() as before:
        before.setattr(database, "MIGRATIONS", migrations.MIGRATIONS[:version])
        with closing(Store(path)) as old:
            old.write_now(_deny)
    Store(tmp_path / "fresh.db").close()
    columns = (
        "SELECT t.name, c.name, c.type FROM sqlite_schema t, pragma_table_info(t.name) c"
        " WHERE t.type = 'table' ORDER BY 1, 2"
    )
    with closing(Store(path)) as new, closing(Store(tmp_path / "fresh.db")) as fresh:
        assert new.write_now(_mode) == "deny"
        found, wanted = (
            each.write_now(lambda connection: [tuple(row) for row in connection.execute(columns)])
            for each in (new, fresh)
        )
    assert found == wanted
    assert ("holds", "sandbox", "TEXT") in found


def test_keys_from_before_roles_may_do_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of an older database is `admin`, and its sandboxes are no user's."""
    with monkeypatch.context() as before:
        before.setattr(database, "MIGRATIONS", migrations.MIGRATIONS[:14])
        with closing(Store(path)) as old:
            old.write_now(
                lambda connection: connection.execute(
                    "INSERT INTO keys (id, label, hash, created_at) VALUES ('key_1', 'laptop', x'00', 1)"
                )
            )
    with closing(Store(path)) as new:
        (key,) = new.write_now(keys.all_of)
    assert (key.label, key.role) == ("laptop", "admin")


def test_a_migration_that_fails_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that cannot be done leaves the database as it was, for the version it had."""
    Store(path).close()
    bad = "CREATE TABLE fresh (x INTEGER) STRICT;\nCREATE TABLE account (x INTEGER);\n"
    monkeypatch.setattr(database, "MIGRATIONS", (*migrations.MIGRATIONS, bad))
    with pytest.raises(StoreError, match="account already exists"):
        Store(path)
    monkeypatch.undo()
    with closing(Store(path)) as old:
        found = old.write_now(
            lambda each: each.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'fresh'").fetchone()
        )
        assert found[0] == 0


def test_older_code_never_opens_a_newer_database(path: Path) -> None:
    """A database of a later version is refused with what to do, and not touched."""
    Store(path).close()
    with closing(sqlite3.connect(path)) as newer:
        newer.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    with pytest.raises(StoreError, match=r"newer irons .*; upgrade irons"):
        Store(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"not a database" * 100, b"SQLite format 3\0" + b"\xff" * 5_000])
def test_a_file_that_is_no_database_is_left_alone(path: Path, content: bytes) -> None:
    """A file that is damaged or something else is named in one line, and stays as it is."""
    path.write_bytes(content)
    with pytest.raises(StoreError) as caught:
        Store(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_a_database_of_somebody_else_is_left_alone(path: Path) -> None:
    """A database with tables but without our version is not migrated."""
    with closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE theirs (x)")
        other.commit()
    with pytest.raises(StoreError, match="not a database of irons"):
        Store(path)


def test_damage_inside_is_one_line(path: Path) -> None:
    """Pages that were overwritten are found out, and reported as damage."""
    with closing(Store(path)) as fine:
        fine.write_now(
            lambda each: each.executemany(
                "INSERT INTO keys VALUES (?, 'x', ?, 0, 0, 'admin')",
                [(str(n), os.urandom(200)) for n in range(500)],
            )
        )
    data = bytearray(path.read_bytes())
    data[4096 : len(data) - 4096] = b"\xa5" * (len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises(StoreError, match="damaged"), closing(Store(path)) as damaged:
        damaged.write_now(lambda each: each.execute("SELECT * FROM keys").fetchall())


def test_a_full_disk_is_one_line_and_loses_nothing(opened: Store) -> None:
    """When there is no room, the write says so and is not done; with room again, it is."""

    def limit(pages: int) -> None:
        opened.write_now(lambda each: each.execute(f"PRAGMA max_page_count = {pages}").fetchall())

    def much(connection: sqlite3.Connection) -> None:
        connection.executemany(
            "INSERT INTO keys VALUES (?, 'x', ?, 0, 0, 'admin')",
            [(str(n), os.urandom(2_000)) for n in range(100)],
        )

    limit(1)
    with pytest.raises(StoreError, match=r"disk that holds .* is full"):
        opened.write_now(much)
    assert opened.write_now(lambda each: each.execute("SELECT count(*) FROM keys").fetchone()[0]) == 0
    limit(1_000_000)
    opened.write_now(much)


def test_a_directory_in_its_place_is_one_line(path: Path) -> None:
    """A path that cannot be opened says what to check."""
    path.mkdir()
    with pytest.raises(StoreError, match="check its owner, its mode"):
        Store(path)


def test_a_busy_database_is_one_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When another program holds the file, the line reports it."""
    Store(path).close()
    monkeypatch.setattr(database, "_BUSY_MS", 50)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="in use by another program"):
            Store(path)
