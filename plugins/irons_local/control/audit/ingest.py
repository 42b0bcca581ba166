"""The gateway's audit logs, taken into the store exactly once and followed as they grow."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import re
import sqlite3
import stat
import struct
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from irons_local.control.audit.intake import RunIntake
from irons_local.control.audit.pauses import Pauses
from irons_local.control.audit.summing import Domains
from irons_local.control.store import members
from irons_policy.event import LARGEST

CHUNK = 1024 * 1024
"""Bytes of one log that are taken in by one transaction."""
PIECES = 2
"""Logs of a member of which something is taken in by one transaction."""
_SWEPT_EVERY = 16 * 1024 * 1024
"""Bytes of copies of members' logs that are taken in before the room that they took is free again."""
COUNTS = 4 * 1024 * 1024
"""Bytes of the counts next to a log that are read at most."""

_decode = json.JSONDecoder().decode
_log = logging.getLogger(__name__)
_RUN = re.compile(r"([0-9]{1,20})-([0-9]{1,10})-([0-9]{1,6})", re.ASCII)
_STILLBORN = 5.0
_PLACE = struct.Struct("<QQ")
_LONGEST_CELL = 64
_PAGE = 4096


class _Known(NamedTuple):
    offset: int
    seq: int
    finished: bool


class IngestResult(NamedTuple):
    """What one look at the logs brought.

    Attributes:
        shown: events that readers had not seen before.
        more: there is more to take in at once.
        finished: some log was taken in to its end.
        asked: cells with the workers that wrote of them, where the keeper must say whether they may; those logs wait.
        changed: events that readers may have seen before and that are not as they were, with the subject of each.
        read: bytes that were read, at least 1 of each log that was.
    """

    shown: int
    more: bool
    finished: bool
    asked: frozenset[tuple[str, int]] = frozenset()
    changed: tuple[tuple[int, int], ...] = ()
    read: int = 0


class Believing(Protocol):
    """Knows which worker may write of which cell."""

    def owns(self, connection: sqlite3.Connection, cell: str, worker: int, /) -> bool | None:
        """Whether a worker may; None where that has to be asked first."""
        ...


class Ingest:
    """Reads `RUN.jsonl` files; its work runs in the store's writer thread, one piece per transaction.

    Args:
        directory: where the logs are; it need not exist yet.
        serving: knows which worker may write of which cell; without it every log is believed.
        pauses: of the thread that takes logs in.
        member: the member of the fleet whose logs these are copies of; empty for the logs of this machine. A copy is
            over where there is `RUN.over`, and not where no one has a lock on it.
    """

    def __init__(
        self,
        directory: Path,
        serving: Believing | None = None,
        pauses: Pauses | None = None,
        member: str = "",
    ) -> None:
        self._directory = directory
        self._prefix = f"{member}/" if member else ""
        self._first = ""
        self._serving = serving
        self._pauses = pauses or Pauses()
        self._reported: set[str] = set()
        self._domains = Domains()

    def take(self, connection: sqlite3.Connection) -> IngestResult:
        """Take in what the logs have new, up to `CHUNK` bytes of each."""
        self._pauses.begin()
        known = {
            run: _Known(row["offset"], row["seq"], bool(row["finished"]))
            for row in connection.execute("SELECT run, offset, seq, finished FROM runs")
            if (run := self._own(row["run"])) is not None
        }
        shown, more, finished, pieces, read = 0, False, False, 0, 0
        asked: set[tuple[str, int]] = set()
        changed: list[tuple[int, int]] = []
        for run in self._in_turns(sorted({*self._runs(), *known})):
            at = known.get(run, _Known(0, 0, finished=False))
            if at.finished:
                finished = True
                continue
            if self._prefix and pieces >= PIECES:
                # The rest has its turn in the next transaction.
                self._first = run
                more = True
                break
            taken = self._take(connection, run, at)
            pieces += taken.read > 0
            read += taken.read
            shown += taken.shown
            more = more or taken.more
            finished = finished or taken.finished
            asked |= taken.asked
            changed += taken.changed
        return IngestResult(shown, more, finished, frozenset(asked), tuple(changed), read)

    def _in_turns(self, runs: list[str]) -> list[str]:
        """The runs, from the one on that was left out last."""
        first = next((index for index, run in enumerate(runs) if run >= self._first), 0)
        return runs[first:] + runs[:first]

    def sweep(self, connection: sqlite3.Connection) -> None:
        """Remove the logs that were taken in to their end; the transaction that recorded this has ended, and the disk has it.

        Of a copy that goes on, for as long as one of its connections lives, the part that was taken in takes no room any more.
        """
        for row in connection.execute("SELECT run, offset, finished FROM runs").fetchall():
            run = self._own(row["run"])
            if run is None:
                continue
            if not row["finished"] or (self._prefix and not self._over(run)):
                if self._prefix:
                    _thin(self._path(run), row["offset"])
                continue
            # Without its log the counts are nothing, so they go first.
            self._path(run, "counts").unlink(missing_ok=True)
            self._path(run).unlink(missing_ok=True)
            connection.execute("DELETE FROM runs WHERE run = ?", (row["run"],))

    def _take(self, connection: sqlite3.Connection, run: str, at: _Known) -> IngestResult:
        data, over = _read(self._path(run), at.offset, self._over(run) if self._prefix else None)
        # A piece without any line end is not a record: it is passed over.
        whole = data.rfind(b"\n") + 1 or (len(data) if len(data) == CHUNK else 0)
        if not whole and not over:
            return IngestResult(0, more=False, finished=False)
        taking = RunIntake(
            connection,
            f"{self._prefix}{run}",
            at.seq,
            partial(_counted, self._path(run, "counts")),
            self._domains,
            self._report,
            self._pauses,
        )
        asked: set[tuple[str, int]] = set()
        pause = self._pauses
        for begin, record in _records(data[:whole]):
            believed = self._believed(connection, run, record, asked)
            if believed is None:
                # It goes on here once the keeper has been asked.
                whole = begin
                break
            if believed:
                taking.record(record)
            pause()
        more = len(data) == CHUNK and not asked
        if over and not more and not asked:
            taking.end()
        shown = taking.finish()
        connection.execute(
            "INSERT INTO runs (run, offset, seq, finished) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (run) DO UPDATE SET offset = excluded.offset, seq = excluded.seq, finished = excluded.finished",
            (f"{self._prefix}{run}", at.offset + whole, taking.seq, taking.ended),
        )
        return IngestResult(
            shown, more, taking.ended, frozenset(asked), tuple(taking.changed.items()), max(1, whole)
        )

    def _believed(
        self, connection: sqlite3.Connection, run: str, record: dict[str, Any], asked: set[tuple[str, int]]
    ) -> bool | None:
        """Whether a worker may write this: of its own cells alone; None, and noted in `asked`, where that is not known yet."""
        if self._serving is None or record.get("kind") == "end":
            return True
        cell, worker = record.get("cell"), int(run.rpartition("-")[2])
        if not isinstance(cell, str) or not 0 < len(cell) <= _LONGEST_CELL:
            believed: bool | None = False
        else:
            believed = self._serving.owns(connection, cell, worker)
            if believed is None:
                asked.add((cell, worker))
        if believed is False:
            self._report("cell")
        return believed

    def _report(self, field: str) -> None:
        """Log once per field that a gateway wrote what it should not."""
        if field not in self._reported:
            self._reported.add(field)
            _log.warning("a gateway's audit log holds an invalid %s; such values are left out", field)

    def _runs(self) -> list[str]:
        try:
            names = os.listdir(self._directory)  # noqa: PTH208 (names are what is wanted)
        except FileNotFoundError:
            return []
        found = (name.removesuffix(".jsonl") for name in names if name.endswith(".jsonl"))
        return sorted(run for run in found if _RUN.fullmatch(run))

    def _own(self, run: str) -> str | None:
        """The name of one of these runs in the directory, by its name in the store; None for another's."""
        if not self._prefix:
            return None if "/" in run else run
        return run.removeprefix(self._prefix) if run.startswith(self._prefix) else None

    def _over(self, run: str) -> bool:
        return self._path(run, "over").exists()

    def _path(self, run: str, kind: str = "jsonl") -> Path:
        return self._directory / f"{run}.{kind}"


class MemberServing:
    """Which cells a member may write of: those that are, or were, on it; see `Believing`."""

    def __init__(self, member: str) -> None:
        self._member = member
        self._known: set[str] = set()

    def owns(self, connection: sqlite3.Connection, cell: str, _worker: int, /) -> bool | None:
        """Whether it may."""
        if cell in self._known:
            return True
        found = members.was_on(connection, cell, self._member)
        if found:
            self._known.add(cell)
        return found


class GatheredLogs:
    """Takes all logs in, as `Ingest` does those of one directory.

    Args:
        own: takes in those of this machine.
        fleet: has a directory for each member of whose logs there are copies; it need not exist.
    """

    def __init__(self, own: Ingest, fleet: Path) -> None:
        self._own = own
        self._fleet = fleet
        self._members: dict[str, Ingest] = {}
        # Members that have a turn before there is nothing more.
        self._round: list[Ingest] = []
        self._finished = False
        self._unswept = 0

    def take(self, connection: sqlite3.Connection) -> IngestResult:
        """Take in what the logs have new, a piece of each."""
        own, *others = self._all()
        # One member for each transaction, so that none of them holds up the others, or a change of rules.
        self._round = [each for each in self._round if each in others] or others
        found = [own.take(connection)]
        for each in self._round[:1]:
            taken = each.take(connection)
            found.append(taken)
            self._round = [*self._round[1:], *([each] if taken.more else [])]
        self._unswept += sum(each.read for each in found[1:])
        self._finished = (
            self._finished or self._unswept >= _SWEPT_EVERY or any(each.finished for each in found)
        )
        return IngestResult(
            sum(each.shown for each in found),
            found[0].more or bool(self._round),
            self._finished,
            frozenset().union(*(each.asked for each in found)),
            tuple(change for each in found for change in each.changed),
        )

    def sweep(self, connection: sqlite3.Connection) -> None:
        """Remove the logs that were taken in to their end."""
        self._finished, self._unswept = False, 0
        for each in self._all():
            each.sweep(connection)

    def _all(self) -> list[Ingest]:
        try:
            names = sorted(os.listdir(self._fleet))  # noqa: PTH208 (names are what is wanted)
        except (FileNotFoundError, NotADirectoryError):
            return [self._own]
        for name in names:
            if name not in self._members:
                self._members[name] = Ingest(self._fleet / name, MemberServing(name), member=name)
        return [self._own, *(self._members[name] for name in names)]


def _read(path: Path, offset: int, ended: bool | None = None) -> tuple[bytes, bool]:
    """The next bytes of a log, and whether no one will write any more.

    Only a plain file is read, since the directory may belong to the gateway's own user. Its writer holds an
    exclusive flock(2) on it from its first record on, which the kernel lets go of when the writer dies.

    Args:
        path: the log.
        offset: where to begin.
        ended: whether it is over, where that is known otherwise.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return b"", ended is not False
    except OSError:
        return b"", False
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            return b"", False
        # Asked before reading: what a writer wrote before it went is then surely read.
        over = ended
        if over is None:
            over = _let_go(fd) and (found.st_size > 0 or time.time() - found.st_mtime > _STILLBORN)
        return os.pread(fd, CHUNK, offset), over
    finally:
        os.close(fd)


def _thin(path: Path, taken: int) -> None:
    """Give back the room of a log's beginning; a file system that can't keeps it for as long as there is the log."""
    # It is little that is read of a fleet's logs, and the calls of the C library take a while to import.
    from irons_local.linux.syscalls import free_beginning

    with contextlib.suppress(OSError):
        fd = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            whole = taken - taken % _PAGE
            if whole and stat.S_ISREG(os.fstat(fd).st_mode):
                free_beginning(fd, whole)
        finally:
            os.close(fd)


def _counted(path: Path) -> dict[int, int]:
    """How often the events of a run happened, by their numbers; places of 16 bytes, as `gateway.tally` says."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return {}
    try:
        data = os.pread(fd, COUNTS, 0) if stat.S_ISREG(os.fstat(fd).st_mode) else b""
    finally:
        os.close(fd)
    counts: dict[int, int] = {}
    for conn, count in _PLACE.iter_unpack(data[: len(data) - len(data) % _PLACE.size]):
        counts[conn] = max(counts.get(conn, 0), min(count, LARGEST))
    return counts


def _let_go(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(fd, fcntl.LOCK_UN)
    return True


def _records(data: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each record, and where its line begins."""
    # Gateways write ASCII, which is decoded at once and whose places are those of its bytes.
    lines: list[str] | list[bytes] = data.decode().split("\n") if data.isascii() else data.split(b"\n")
    begin = 0
    for line in lines:
        try:
            record = _read_line(line) if line else None
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            yield begin, record
        begin += len(line) + 1


def _read_line(line: str | bytes) -> Any:
    return _decode(line) if isinstance(line, str) else json.loads(line)
