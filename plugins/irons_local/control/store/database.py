"""The control plane's SQLite file: opened with care, migrated with a backup, one thread that writes."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from irons_local.control.store.migrations import MIGRATIONS
from irons_local.linux.scheduling import lengthen_turns

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]

TURN = 10_000_000
"""Nanoseconds of a turn of the control plane's threads: longer than others' turns, so that a gateway that is woken goes first."""
_BUSY_MS = 5_000
_NOT_OURS = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_NO_ROOM = (sqlite3.SQLITE_FULL,)
_SHORT = 1 << 20
"""Bytes: with less than this free, an error of reading or writing is one of room (SQLite's index of the WAL says no more)."""
_NO_ACCESS = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH)


class StoreError(Exception):
    """The database cannot be used; the message is one line that says why and what to do."""


class NoRoomError(StoreError):
    """The disk is full."""


class Store:
    """One writer thread and one reader thread over one SQLite file in WAL mode.

    Work is a function of a connection. It runs off the event loop; a write runs in a transaction of its own,
    which is rolled back when the work raises.
    """

    def __init__(self, path: Path, spare: Callable[[], bool] = lambda: False) -> None:
        """Open, check and migrate the file at `path`, making it where it is missing.

        Args:
            path: the file.
            spare: makes some room on a full disk, and returns whether it could; called for what must not fail.

        Raises:
            StoreError: the file is not usable, or a newer irons made it.
        """
        self.path = path
        self._spare = spare
        self._writing, self._reading = self._with_spare(self._open)
        self._writer = ThreadPoolExecutor(1, "store-writer", lengthen_turns, (TURN,))
        self._reader = ThreadPoolExecutor(1, "store-reader", lengthen_turns, (TURN,))
        self._committed: list[Callable[[contextvars.Context], None]] = []
        self._named = False

    def on_commit(self, told: Callable[[contextvars.Context], None]) -> None:
        """Have `told` called after each committed `write`, with the context that its work ran in."""
        self._committed.append(told)

    async def read(self, work: Work[T]) -> T:
        """Run `work` on the reading connection, in a snapshot, and in a copy of the caller's context.

        Raises:
            StoreError: the database failed.
        """
        context = contextvars.copy_context()

        def in_context() -> T:
            return context.run(self._read, work)

        return await asyncio.get_running_loop().run_in_executor(self._reader, in_context)

    async def write(
        self, work: Work[T], *, last: bool = False, durable: bool = False, settled: bool = False
    ) -> T:
        """Run `work` in a write transaction; what it wrote is there when this returns, or not at all.

        It runs in a copy of the caller's context: the change log records the origin of the request.

        Args:
            work: may run again where it failed for lack of room.
            last: the room that is kept for the last steps may be used for it.
            durable: wait until the disk has it, so that no power cut undoes it.
            settled: begin only once the disk has what was written before.

        Raises:
            NoRoomError: the disk is full; nothing was written.
            StoreError: the database failed; nothing was written, or, of what is `durable`, a power cut may undo it.
        """
        writes = self._write_last if last else self.write_now
        context = contextvars.copy_context()

        def in_context() -> T:
            if settled:
                self._sync()
            done = context.run(writes, work)
            if durable:
                self._sync()
            return done

        done = await asyncio.get_running_loop().run_in_executor(self._writer, in_context)
        for told in self._committed:
            told(context)
        return done

    def write_now(self, work: Work[T]) -> T:
        """`write` for the writer thread, and for before the event loop runs.

        Raises:
            StoreError: the database failed; nothing was written.
        """
        with _explained(self.path), _transaction(self._writing, "IMMEDIATE"):
            return work(self._writing)

    def close(self) -> None:
        """Let running work end and close the file."""
        self._writer.shutdown()
        self._reader.shutdown()
        self._reading.close()
        self._writing.close()

    def _open(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        with _explained(self.path):
            writing = _connect(self.path)
            try:
                _migrate(writing, self.path, MIGRATIONS)
                reading = _connect(self.path)
            except BaseException:
                writing.close()
                raise
            reading.execute("PRAGMA query_only = ON")
        return writing, reading

    def _sync(self) -> None:
        """Wait until the disk has all that was committed."""
        log = self.path.with_name(f"{self.path.name}-wal")
        try:
            # The log's name, too, once: it stays for as long as this is open.
            for path in (log,) if self._named else (log, self.path.parent):
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    os.fdatasync(fd)
                finally:
                    os.close(fd)
            self._named = True
        except FileNotFoundError:
            # A file system on which SQLite keeps no such log: each commit is written out there.
            return
        except OSError as error:
            raise StoreError(f"the disk that holds {self.path} failed: {error.strerror}") from error

    def _write_last(self, work: Work[T]) -> T:
        return self._with_spare(lambda: self.write_now(work))

    def _with_spare(self, step: Callable[[], T]) -> T:
        """Take a step again for as long as room can be made for it."""
        while True:
            try:
                return step()
            except NoRoomError:
                if not self._spare():
                    raise

    def _read(self, work: Work[T]) -> T:
        with _explained(self.path), _transaction(self._reading, "DEFERRED"):
            return work(self._reading)


def look_into(path: Path, work: Work[T]) -> T | None:
    """Run `work` on a file that may be another process's, and change nothing of it.

    Args:
        path: the file.
        work: a function of a connection that only reads.

    Returns:
        What `work` gave; None where there is no such file, another version of irons made it, or it cannot be read.
    """
    with (
        contextlib.suppress(sqlite3.Error),
        contextlib.closing(
            sqlite3.connect(
                f"{path.as_uri()}?mode=ro", timeout=_BUSY_MS / 1000, isolation_level=None, uri=True
            )
        ) as connection,
    ):
        connection.row_factory = sqlite3.Row
        with _transaction(connection, "DEFERRED"):
            return work(connection) if _version(connection) == len(MIGRATIONS) else None
    return None


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode = WAL")
    # With WAL this cannot corrupt the file; a power cut may lose the last transactions, but for durable ones, and a kill none.
    connection.execute("PRAGMA synchronous = NORMAL")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA journal_size_limit = 67108864")
    return connection


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection, kind: str) -> Iterator[None]:
    connection.execute(f"BEGIN {kind}")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _migrate(connection: sqlite3.Connection, path: Path, steps: Sequence[str]) -> None:
    version = _version(connection)
    if version > len(steps):
        raise StoreError(
            f"{path} was made by a newer irons (its version is {version}, this one knows {len(steps)}); "
            "upgrade irons, or move the file away to start again"
        )
    if version == len(steps):
        # A write lock and a look at the schema: a read-only or foreign file is found out here, not later.
        with _transaction(connection, "IMMEDIATE"):
            connection.execute("SELECT count(*) FROM account").fetchone()
        return
    if version:
        _back_up(connection, path.with_name(f"{path.name}.v{version}.bak"))
    elif connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
        raise StoreError(f"{path} is not a database of irons; move it away to start again")
    with _transaction(connection, "IMMEDIATE"):
        for number, step in enumerate(steps[version:], version + 1):
            for statement in _statements(step):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: `executescript` would commit before it begins."""
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""


def _back_up(connection: sqlite3.Connection, path: Path) -> None:
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    copy = sqlite3.connect(fresh)
    try:
        connection.backup(copy)
    finally:
        copy.close()
    fresh.rename(path)


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn SQLite's error about the file into one line for people."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.Error as error:
        if _is_short_of_room(path, error):
            raise NoRoomError(f"the disk that holds {path} is full; free some space") from error
        raise StoreError(_explanation(path, error)) from error


def _is_short_of_room(path: Path, error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        return code in _NO_ROOM
    with contextlib.suppress(OSError):
        found = os.statvfs(path.parent)
        return found.f_bavail * found.f_frsize < _SHORT
    return False


def _explanation(path: Path, error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _NOT_OURS:
        return f"{path} is damaged or not a database ({error}); move it away, or put a backup in its place"
    if code in _NO_ACCESS:
        return f"{path} cannot be written ({error}); check its owner, its mode and its file system"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return f"{path} is in use by another program; end that one first"
    return f"the database {path} failed: {error}"
