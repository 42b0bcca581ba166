"""What the change log has of questions: each answer, with the change it makes, and each question that ended without one."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple, cast

from irons_local.control.store import changelog, sandboxes
from irons_local.control.store.changelog import What
from irons_local.control.store.database import Store, StoreError
from irons_local.ipc.unixsock import terminal_of
from irons_policy.hostnames import Host, HostError, canonical_host
from irons_policy.patterns import narrowest

REASONS: Final[Mapping[str, str]] = {
    "expired": "no one answered, and it was not tried again",
    "decided": "a change of rules or of the mode decides it",
    "detached": "its sandbox stopped, or another gateway worker serves it",
}
"""What the change log says of why a question ended, by the gateway's word."""
WORKER_ENDED = "the gateway worker that asked has ended"
NOT_TAKEN = "the gateway did not confirm its answer"

GRACE = 10.0
"""Seconds in which a worker that has been met again may say that it still asks."""
_AGAIN = 5.0
"""Seconds until what could not be written is tried again."""
_MOST_KNOWN = 20_000
"""Questions that are remembered as recorded; of others the change log itself is asked."""
_MOST = 64
"""Ended questions of one cell that are taken from a worker at once."""
_LATEST = 253_402_300_799_999_999
_log = logging.getLogger(__name__)


class QuestionEnd(NamedTuple):
    """A question that ended without an answer.

    Attributes:
        id: the question's id.
        cell: the sandbox.
        pattern: what was asked about, HOST:PORT.
        tried: connections that were tried.
        reason: what ended it, for people.
    """

    id: str
    cell: str
    pattern: str
    tried: int
    reason: str


def question_id(cell: str, host: Host, port: int, since: int) -> str:
    """Return the id of a question, which is the same however often a worker tells of it."""
    return "q_" + hashlib.sha256(f"{cell} {host.text} {port} {since}".encode()).hexdigest()[:8]


def read_ends(cell: str, told: Sequence[Any]) -> list[QuestionEnd]:
    """Read what a worker says of questions that ended; what is malformed is passed over."""
    return [each for each in (_read_end(cell, given) for given in told[:_MOST]) if each]


class QuestionLog:
    """Records how questions end. Workers tell of the same end more than once; it is recorded once.

    Args:
        store: has the change log and the sandboxes.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._recorded: dict[str, None] = {}
        # What is to be written, and when: now, or once no worker has said by then that it still asks.
        self._waiting: dict[str, tuple[float, QuestionEnd]] = {}
        self._news = asyncio.Event()

    def ended(self, ends: Iterable[QuestionEnd]) -> None:
        """Record these questions, soon."""
        for each in ends:
            if each.id not in self._recorded:
                self._put(each, 0.0)

    def lost(self, ends: Iterable[QuestionEnd]) -> None:
        """Record these, which a worker that ended has asked, unless one asks them still."""
        for each in ends:
            self._put(each, GRACE)

    def open(self, ids: Iterable[str]) -> None:
        """These are asked: whichever was lost has been found again."""
        for each in ids:
            self._waiting.pop(each, None)

    async def run(self) -> None:
        """Write what ends, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = [end for at, end in self._waiting.values() if at <= loop.time()]
            if not due:
                await self._next(min((at for at, _ in self._waiting.values()), default=None))
                continue
            try:
                await self._store.write(partial(_write, ends=due))
            except StoreError as error:
                _log.warning("ended questions can't be recorded: %s", error)
                await asyncio.sleep(_AGAIN)
                continue
            for each in due:
                if self._waiting.get(each.id, (0.0, None))[1] == each:
                    del self._waiting[each.id]
                self._recorded[each.id] = None
            while len(self._recorded) > _MOST_KNOWN:
                del self._recorded[next(iter(self._recorded))]

    def _put(self, end: QuestionEnd, delay: float) -> None:
        # What is certain by now is not put off again.
        if self._waiting.get(end.id, (float("inf"), end))[0] > (
            at := asyncio.get_running_loop().time() + delay
        ):
            self._waiting[end.id] = at, end
            self._news.set()

    async def _next(self, at: float | None) -> None:
        self._news.clear()
        try:
            async with asyncio.timeout_at(at):
                await self._news.wait()
        except TimeoutError:
            pass


def answer_record(
    about: QuestionEnd, sandbox: sandboxes.StoredSandbox, after: Mapping[str, Any]
) -> Callable[[sqlite3.Connection], None]:
    """Return what records an answer, with the terminal it came from, in the transaction that makes its change."""
    pid = changelog.ORIGIN.get().pid
    terminal = None if pid is None else terminal_of(pid)
    given = {**after, "question": about.id, **({} if terminal is None else {"terminal": terminal})}

    def work(connection: sqlite3.Connection) -> None:
        changelog.record(connection, What.ANSWERED, sandbox=sandbox, subject=about.pattern, after=given)

    return work


def _write(connection: sqlite3.Connection, ends: Sequence[QuestionEnd]) -> None:
    cells = {each.cell for each in ends}
    known = {each.id: each for each in sandboxes.all_of(connection) if each.id in cells}
    for each in ends:
        sandbox = known.get(each.cell)
        # That a sandbox was destroyed has a record, and with it that nothing is asked of it.
        if sandbox is None or _recorded(connection, each):
            continue
        changelog.record(
            connection,
            What.QUESTION_ENDED,
            sandbox=sandbox,
            subject=each.pattern,
            before={"question": each.id, "tried": each.tried},
            reason=each.reason,
            origin=changelog.ITSELF,
        )


def _recorded(connection: sqlite3.Connection, end: QuestionEnd) -> bool:
    """True where a question's end is recorded, or an answer that the end does not take back."""
    kinds = (What.QUESTION_ENDED.value, What.ANSWERED.value if end.reason != NOT_TAKEN else "")
    rows = connection.execute(
        "SELECT before, after FROM changes WHERE sandbox = ? AND subject = ? AND what IN (?, ?)",
        (end.cell, end.pattern, *kinds),
    )
    return any(json.loads(before or after)["question"] == end.id for before, after in rows)


def _read_end(cell: str, given: object) -> QuestionEnd | None:
    if not isinstance(given, Mapping):
        return None
    said = cast("Mapping[str, Any]", given)
    numbers = [said.get(key) for key in ("port", "since", "count")]
    if not all(type(each) is int and 0 <= each <= _LATEST for each in numbers):
        return None
    port, since, count = cast("list[int]", numbers)
    name, reason = said.get("host"), REASONS.get(str(said.get("why")))
    if not isinstance(name, str) or not 0 < port < 65_536 or reason is None:
        return None
    try:
        host = canonical_host(name)
    except HostError:
        return None
    pattern = narrowest(host.text, port, exact=True)
    return QuestionEnd(question_id(cell, host, port, since), cell, pattern, count, reason)
