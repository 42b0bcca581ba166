"""The write-ahead audit log: append-only files that the control plane takes in.

A record is one JSON object on one line, handed to the kernel by one `write(2)` before what it speaks of happens; an
attempt's first one right after `accept(2)`. Records of one run are numbered from 1 without a gap, so taking them in
twice is harmless. A file that has grown large is followed by a new run; the old one ends, with a record of kind
`end`, once its last attempt is closed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from irons_local.gateway.record.encoding import encoder
from irons_local.gateway.record.tally import CounterFile
from irons_local.times import now

Kind = Literal["open", "verdict", "close", "event", "dropped", "fold", "end"]

_REFUSALS = frozenset({"event", "dropped", "fold"})
"""Kinds of records that are of refusals: an attempt that is let through has others."""
ROTATE_BYTES = 16 * 1024 * 1024
_ENCODE = encoder()
_quoted = lru_cache(maxsize=1024)(json.dumps)


class JournalError(Exception):
    """A record could not be written; what it was to speak of must not happen."""


class Run:
    """One file of the log; its name is unique for ever."""

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self.live = 0
        self.retired = False
        self.ended = False
        self.bytes = 0
        self.counts = CounterFile(directory / f"{name}.counts")
        self._seq = 0
        # Each record begins like this: an encoder would work it out again every time.
        self._begun = f'{{"run":{json.dumps(name)},"seq":'
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC
        fresh = directory / f".{name}.new"
        try:
            self._fd = os.open(fresh, flags, 0o640)
            # The kernel lets go of it when this process ends, however it ends: so the reader knows. It must not
            # meet the file before it is locked.
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fresh.rename(directory / f"{name}.jsonl")
        except OSError as error:
            raise JournalError(f"the audit log cannot be opened: {error.strerror}") from error

    def write(self, kind: Kind, about: str, fields: dict[str, Any]) -> None:
        """Append one record.

        Args:
            kind: what it says.
            about: the members that all records of an attempt have, as JSON: a comma, and each after another one; or nothing.
            fields: its own.

        Raises:
            JournalError: the kernel did not take it whole.
        """
        begun = f'{self._begun}{self._seq + 1},"at":{now()},"kind":"{kind}"{about}'
        line = f"{begun},{_ENCODE(fields)[1:]}\n".encode() if fields else f"{begun}}}\n".encode()
        try:
            written = os.write(self._fd, line)
        except OSError as error:
            raise JournalError(f"the audit log cannot be written: {error.strerror}") from error
        if written != len(line):
            # Half a line would swallow the next one.
            with contextlib.suppress(OSError):
                os.ftruncate(self._fd, self.bytes)
            raise JournalError("the audit log cannot be written: no room")
        self._seq += 1
        self.bytes += written

    def end(self) -> None:
        """Write the last record, which lets the reader remove the file, and close it."""
        if self.ended:
            return
        self.ended = True
        with contextlib.suppress(JournalError):
            self.write("end", "", {})
        self.counts.close()
        os.close(self._fd)


class Entry:
    """One attempt in the log; its later records update its earlier ones."""

    __slots__ = ("_about", "_journal", "_run", "closed", "conn")

    def __init__(self, journal: Journal, run: Run, conn: int, cell: str) -> None:
        self._journal = journal
        self._run = run
        self._about = f',"conn":{conn},"cell":{_quoted(cell)}'
        self.conn = conn
        self.closed = False

    @property
    def run(self) -> Run:
        """The run it is in."""
        return self._run

    @property
    def name(self) -> str:
        """Its id among all connections: the run, and its number there."""
        return f"{self._run.name}.{self.conn}"

    def open(self, **fields: Any) -> None:
        """Record that it was accepted, or, again, the host that it turned out to be for.

        Raises:
            JournalError: it could not be written.
        """
        self._journal.put(self._run, "open", self._about, fields)

    def verdict(self, **fields: Any) -> None:
        """Say what was decided, before the dial.

        Raises:
            JournalError: it could not be written.
        """
        self._journal.put(self._run, "verdict", self._about, fields)

    def event(self, **fields: Any) -> None:
        """Say, or say again, a whole event in one record.

        Raises:
            JournalError: it could not be written.
        """
        self._journal.put(self._run, "event", self._about, fields)

    def dropped(self, **fields: Any) -> None:
        """Say, or say again, how many events there was no room for.

        Raises:
            JournalError: it could not be written.
        """
        self._journal.put(self._run, "dropped", self._about, fields)

    def count(self, count: int) -> None:
        """Say, next to the log, how often it happened so far; a full disk loses it if this process is then killed."""
        with contextlib.suppress(OSError):
            self._run.counts.put(self.conn, count)

    def fold(self, into: Entry, count: int) -> None:
        """Say that this attempt is a repeat of another event of the same run, and no event of its own.

        Args:
            into: the event.
            count: how often that happened so far, this time included.

        Raises:
            JournalError: it could not be written.
        """
        try:
            self._journal.put(self._run, "fold", self._about, {"into": into.conn, "count": count})
        finally:
            self.done()

    def close(self, **fields: Any) -> None:
        """Say how it ended; the second time nothing happens. A full disk loses this record, not the run."""
        if self.closed:
            return
        self.closed = True
        try:
            self._journal.put(self._run, "close", self._about, fields)
        except JournalError:
            self._journal.lost += 1
        self._journal.release(self._run)

    def done(self) -> None:
        """Nothing more will be recorded of this event."""
        if not self.closed:
            self.closed = True
            self._run.counts.drop(self.conn)
            self._journal.release(self._run)


class Journal:
    """The log of one gateway worker.

    Args:
        directory: where the runs are.
        wrote: called after each record with the run's name, and whether it is of a refusal.
        worker: number of this worker.
        rotate: size in bytes after which a new run begins.

    Attributes:
        lost: records of ends that could not be written.
        full: nothing is recorded now but how attempts end: what is written waits for a server, and is as much as may.
    """

    def __init__(
        self,
        directory: Path,
        wrote: Callable[[str, bool], None],
        worker: int = 0,
        rotate: int = ROTATE_BYTES,
    ) -> None:
        directory.mkdir(mode=0o750, exist_ok=True)
        self.lost = 0
        self.full = False
        self._directory = directory
        self._wrote = wrote
        self._worker = worker
        self._rotate = rotate
        self._conn = 0
        self._runs: set[Run] = set()
        self._run = self._begin()

    @property
    def run(self) -> str:
        """The name of the run that new attempts go to."""
        return self._run.name

    def open(self, cell: str, **fields: Any) -> Entry:
        """Begin an attempt, as soon as it was accepted.

        Raises:
            JournalError: it could not be written.
        """
        entry = self.entry(cell)
        try:
            entry.open(**fields)
        except JournalError:
            entry.done()
            raise
        return entry

    def entry(self, cell: str) -> Entry:
        """A place for an event that is written whole."""
        if self._run.bytes >= self._rotate:
            self._turn()
        self._conn += 1
        self._run.live += 1
        return Entry(self, self._run, self._conn, cell)

    def event(self, cell: str, **fields: Any) -> None:
        """Write a whole event in one record.

        Raises:
            JournalError: it could not be written.
        """
        entry = self.entry(cell)
        try:
            entry.event(**fields)
        finally:
            entry.done()

    def put(self, run: Run, kind: Kind, about: str, fields: dict[str, Any]) -> None:
        """Append a record to a run, as `Run.write` does, and tell whoever waits for it.

        Raises:
            JournalError: it could not be written.
        """
        if self.full and kind != "close":
            raise JournalError("the audit log cannot be written: too much of it waits for the server")
        run.write(kind, about, fields)
        self._wrote(run.name, kind in _REFUSALS or fields.get("allowed") is False)

    def release(self, run: Run) -> None:
        """One attempt less is open in a run; a finished run records that."""
        run.live -= 1
        if run.retired and not run.live:
            self._end(run)

    def close(self) -> None:
        """End every run: what is still open was interrupted."""
        for run in list(self._runs):
            self._end(run)

    def _turn(self) -> None:
        try:
            fresh = self._begin()
        except JournalError:
            # The one there is takes what there is room for.
            return
        old, self._run = self._run, fresh
        old.retired = True
        if not old.live:
            self._end(old)

    def _begin(self) -> Run:
        run = Run(self._directory, f"{now()}-{os.getpid()}-{self._worker}")
        self._runs.add(run)
        return run

    def _end(self, run: Run) -> None:
        self._runs.discard(run)
        if not run.ended:
            run.end()
            self._wrote(run.name, False)
