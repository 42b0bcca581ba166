"""What people are asked: the open questions of every sandbox, who watches, and what an answer does.

Nothing of it is stored. The gateway has the questions, and says all of a cell's whenever one changes; that it was asked is in the
audit log, and how each ended is in the change log.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, Final, Literal, NamedTuple, Protocol, cast

from irons.text import clean
from irons_local.cell.layout import Ends
from irons_local.control.clients.programs import (
    FindsProgram,
    Programs,
    ProgramWanted,
    QuestionProgram,
    finds_nothing,
)
from irons_local.control.egress import locked
from irons_local.control.egress.question_details import (
    CellAnswer,
    QuestionAbout,
    QuestionBook,
    QuestionDetails,
    read_answers,
)
from irons_local.control.egress.question_log import (
    NOT_TAKEN,
    WORKER_ENDED,
    QuestionEnd,
    QuestionLog,
    answer_record,
    question_id,
    read_ends,
)
from irons_local.control.egress.rules_and_modes import Egress
from irons_local.control.egress.rules_input import rules_to_put
from irons_local.control.egress.watchers import Watchers
from irons_local.control.schema.errors import HttpError, bad, missing
from irons_local.control.store import sandboxes
from irons_local.control.store.database import Store
from irons_local.control.store.sandboxes import StoredSandbox
from irons_local.ipc.messages import OpenQuestions, WatchQuestions
from irons_policy.hostnames import Host, HostError, canonical_host
from irons_policy.patterns import Pattern, narrowest, read_pattern
from irons_policy.policy import PatternIndex

Answer = Literal["once", "stop", "hour", "always", "no", "never"]
ANSWERS: Final[tuple[Answer, ...]] = ("once", "stop", "hour", "always", "no", "never")
"""`once` and `no` are for what waits; the others are rules: until the sandbox stops, for an hour, for good, and a deny rule."""

LONGEST_WAIT = 2.0
"""Seconds that a request waits for something new: a face that is gone is missed that soon."""
HOUR = 3600
_MOST_REASON = 200
"""Characters of an agent's reason."""
_MOST = 64
"""Questions of one cell that are taken from a worker."""
_MOST_REMEMBERED = 1_000
"""Sandboxes of which nothing is asked whose last change is remembered: whoever follows one of them has seen it long since."""
_LATEST = 253_402_300_799_999_999
_LONGEST_ADDRESS = 45


class Workers(Protocol):
    """The gateway's workers, as far as questions are concerned."""

    def watch(self, told: WatchQuestions) -> None:
        """Tell each who watches."""
        ...

    async def reply(self, cell: str, host: str, port: int, reply: str, since: int) -> int | None:
        """Give an answer that is not a rule; gives how many connections waited, None where the question is gone. Raises `HttpError`."""
        ...


class CellQuestion(NamedTuple):
    """A question.

    Attributes:
        id: names it, with its time: the same host that is asked about later is another question.
        cell: the sandbox.
        host: what is asked about, canonical.
        port: and where.
        protocol: what the first connection spoke.
        since: when it was asked, microseconds since 1970.
        last: when it was tried last, likewise.
        count: connections that were tried.
        waiting: those that wait.
        requests: how often the agent inside asked for it, without a connection.
        reason: the agent's last words for that, cleaned; empty where it gave none.
        ends: the two ends of the connection that waited last.
    """

    id: str
    cell: str
    host: Host
    port: int
    protocol: str
    since: int
    last: int
    count: int  # type: ignore[assignment]
    waiting: int
    requests: int = 0
    reason: str = ""
    ends: Ends | None = None

    @property
    def pattern(self) -> str:
        """The pattern of a rule for just that."""
        return narrowest(self.host.text, self.port, exact=True)

    def end(self, reason: str) -> QuestionEnd:
        """What the change log has of it once it has ended without an answer."""
        return QuestionEnd(self.id, self.cell, self.pattern, self.count, reason)


class AnswerEffect(NamedTuple):
    """What an answer did.

    Attributes:
        question: the question.
        sandbox: whose it was.
        rule: the pattern of the rule that was put; None where it is not a rule.
        waited: how many connections waited for it.
        rules: the patterns of all rules that were put.
    """

    question: CellQuestion
    sandbox: StoredSandbox
    rule: str | None
    waited: int
    rules: tuple[str, ...] = ()


class RuleSet(NamedTuple):
    """Rules for a set of hosts, which are put in place of one for the question.

    Attributes:
        patterns: a rule each.
        note: kept with each.
    """

    patterns: tuple[str, ...]
    note: str = ""


class QuestionsSeen(NamedTuple):
    """What there is to see.

    Attributes:
        questions: the open questions, each with its sandbox: the oldest of each, then the second of each, and so on.
        others: places of sandboxes beyond their questions.
        token: another one once something has changed.
        details: what there is to see of each question, by its id.
        answers: those that are not rules and count for a while yet, each with its sandbox and the seconds that are left.
        programs: the programs that are known, by the question's id.
    """

    questions: Sequence[tuple[CellQuestion, StoredSandbox]]
    others: Sequence[tuple[StoredSandbox, int]]
    token: int
    details: Mapping[str, QuestionDetails] = {}
    answers: Sequence[tuple[CellAnswer, StoredSandbox, float]] = ()
    programs: Mapping[str, QuestionProgram] = {}


class QuestionDesk:
    """Knows what is asked, and answers.

    Args:
        workers: the gateway's workers.
        egress: puts rules.
        store: has the sandboxes and the change log.
        hold: seconds for which a connection waits.
        clock: seconds that only ever grow.
        caught_up: has what was recorded until now taken into the audit log, which tells what is known of a question.
        program: finds the program that holds a connection.
        opaque: engines whose sandboxes do not show their programs.

    Attributes:
        watchers: who watches.
    """

    def __init__(
        self,
        workers: Workers,
        egress: Egress,
        store: Store,
        hold: float,
        clock: Callable[[], float] = time.monotonic,
        *,
        caught_up: Callable[[], Awaitable[None]],
        program: FindsProgram = finds_nothing,
        opaque: Collection[str] = (),
    ) -> None:
        self._workers, self._egress, self._store = workers, egress, store
        self._log = QuestionLog(store)
        self._book = QuestionBook(store, caught_up, self._ids)
        self.watchers = Watchers(workers.watch, hold, clock)
        self._opaque = opaque
        self._programs = Programs(program, self._note_change, clock)
        self._open: dict[str, tuple[CellQuestion, ...]] = {}
        self._answering: set[str] = set()
        self._others: dict[str, int] = {}
        self._clock = clock
        self._answers: dict[str, tuple[CellAnswer, ...]] = {}
        # Another process of the control plane begins with another token.
        self._token = time.time_ns() // 1_000_000
        self._first = self._token
        self._changed: dict[str, int] = {}
        self._news = asyncio.Event()

    # What workers say.

    def heard(self, told: OpenQuestions) -> None:
        """Take a worker's word for what is asked of a cell of its own; what is malformed is passed over."""
        found = [each for each in (_question(told.cell, given) for given in told.questions[:_MOST]) if each]
        self._log.open(each.id for each in found)
        self._log.ended(read_ends(told.cell, told.ended))
        answers = read_answers(told.answers, self._clock())
        if answers:
            self._answers[told.cell] = answers
        else:
            self._answers.pop(told.cell, None)
        self._put(told.cell, tuple(found), told.others)

    @property
    def count(self) -> int:
        """How many questions are open."""
        return sum(map(len, self._open.values())) + sum(self._others.values())

    def forget(self, cell: str) -> None:
        """Its worker is another one, or it is gone: nothing is asked of it until a worker says otherwise."""
        self._log.lost(each.end(WORKER_ENDED) for each in self._open.get(cell, ()))
        self._answers.pop(cell, None)
        self._put(cell, (), 0)

    def _put(self, cell: str, found: tuple[CellQuestion, ...], others: int) -> None:
        before = self._open.get(cell, ()), self._others.get(cell, 0)
        if before == (found, others):
            return
        self._open[cell], self._others[cell] = found, others
        if not found and not others:
            del self._open[cell], self._others[cell]
        self._programs.keep(self._ids())
        self._note_change(cell)

    def _note_change(self, cell: str) -> None:
        """There is something new to see of a cell."""
        self._token += 1
        # The last changed one comes last.
        self._changed.pop(cell, None)
        self._changed[cell] = self._token
        self._tidy()
        self._news.set()

    def _tidy(self) -> None:
        """Forget when it last changed what is asked of sandboxes of which nothing is, once there are many."""
        if len(self._changed) > len(self._open) + 2 * _MOST_REMEMBERED:
            quiet = [cell for cell in self._changed if cell not in self._open]
            for cell in quiet[:-_MOST_REMEMBERED]:
                del self._changed[cell]

    async def run(self) -> None:
        """Tell the workers who watches, and record how questions end, until cancelled."""
        async with asyncio.TaskGroup() as both:
            both.create_task(self._log.run())
            both.create_task(self.watchers.run())

    # What faces ask.

    async def page(
        self, after: int | None, wait: float, only: Collection[str] | None = None
    ) -> QuestionsSeen:
        """The open questions, as soon as they are others than those of a token.

        Args:
            after: the token; None does not wait.
            wait: seconds to wait at most.
            only: the sandboxes whose questions are wanted, and that end the wait; None is all.

        Raises:
            StoreError: the database failed.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                while after == self._token_of(only):
                    self._news.clear()
                    await self._news.wait()
        token, cells = self._token_of(only), {*self._open, *self._others, *self._answers}
        if only is not None:
            cells &= {*only}
        known = await self._sandboxes(cells)
        # The first of each sandbox, then the second of each: however many one has, they come after the first of another.
        ranked = sorted(
            (rank, each.since, each)
            for cell, asked in self._open.items()
            if cell in known
            for rank, each in enumerate(sorted(asked, key=lambda each: each.since))
        )
        questions = [(each, known[each.cell]) for _, _, each in ranked]
        others = [(known[cell], count) for cell, count in self._others.items() if count and cell in known]
        now = self._clock()
        answers = [
            (each, known[cell], each.until - now)
            for cell, given in self._answers.items()
            for each in given
            if cell in known and each.until > now
        ]
        about = await self._book.of(
            QuestionAbout(each.id, each.cell, each.host, each.port, each.since) for each, _ in questions
        )
        programs = {each.id: self._programs.of(each.id) for each, _ in questions}
        # What has been seen without its program gets it later: no one waits for that.
        self._programs.want(
            ProgramWanted(each.id, each.cell, each.ends)
            for each, sandbox in questions
            if each.ends is not None and sandbox.engine not in self._opaque
        )
        return QuestionsSeen(questions, others, token, about, answers, programs)

    async def answer(
        self, identity: str, said: Answer, *, all_of: bool, pattern: str | None, hosts: RuleSet | None = None
    ) -> AnswerEffect:
        """Answer a question.

        Args:
            identity: the question's id.
            said: the answer.
            all_of: a rule is for all sandboxes.
            pattern: of the rule, where it is wider than the question; it must cover it.
            hosts: the set that is allowed in place of the question's host; one of its patterns must cover the question, and one
                that has a rule of that scope keeps it.

        Raises:
            HttpError: there is no such question any more, the pattern does not cover it, or the gateway did not confirm.
            StoreError: the database failed.
        """
        question = self._find(identity)
        # The first answer counts, and the second of two at once finds no question.
        if question is None or identity in self._answering:
            raise _gone(identity)
        is_rule = said not in ("once", "no")
        if (all_of or pattern is not None) and not is_rule:
            raise bad(f"{said} is for the connections of this question alone, and not a rule")
        if hosts is not None and (said not in ("stop", "hour", "always") or pattern is not None):
            raise bad("a set of hosts is allowed, without a pattern next to it")
        if all_of and said == "stop":
            raise bad("all sandboxes do not stop together; stop is for one")
        self._answering.add(identity)
        try:
            if is_rule:
                done = await self._put_rules(question, said, all_of=all_of, pattern=pattern, hosts=hosts)
            else:
                done = await self._reply(question, said)
        finally:
            self._answering.discard(identity)
        # Its worker says so too, in a moment.
        left = tuple(each for each in self._open.get(question.cell, ()) if each.id != identity)
        self._put(question.cell, left, self._others.get(question.cell, 0))
        return done

    def _ids(self) -> set[str]:
        return {each.id for asked in self._open.values() for each in asked}

    def _find(self, identity: str) -> CellQuestion | None:
        return next((each for asked in self._open.values() for each in asked if each.id == identity), None)

    async def _reply(self, question: CellQuestion, said: Answer) -> AnswerEffect:
        """Give an answer that is not a rule. A connection waits for it, so there is one turn of the database, not one for each step."""
        about = question.end("")

        def work(connection: sqlite3.Connection) -> StoredSandbox:
            sandbox = sandboxes.find(connection, question.cell)
            if sandbox is None or sandbox.id != question.cell:
                raise _gone(question.id)
            locked.check_scope(sandbox)
            answer_record(about, sandbox, {"answer": said, "waited": question.waiting})(connection)
            return sandbox

        # Before it is given: a control plane that is killed leaves no answer without a record.
        sandbox = await self._store.write(work)
        waited = None
        try:
            waited = await self._workers.reply(
                question.cell, question.host.text, question.port, said, question.since
            )
        finally:
            if waited is None:
                self._log.ended([about._replace(reason=NOT_TAKEN)])
        if waited is None:
            raise _gone(question.id)
        return AnswerEffect(question, sandbox, None, waited)

    async def _put_rules(
        self,
        question: CellQuestion,
        said: Answer,
        *,
        all_of: bool,
        pattern: str | None,
        hosts: RuleSet | None,
    ) -> AnswerEffect:
        """Give an answer that is a rule, or a set of them."""
        sandbox = (await self._sandboxes({question.cell})).get(question.cell)
        if sandbox is None or self._find(question.id) is None:
            raise _gone(question.id)
        locked.check_scope(None if all_of else sandbox)
        about = question.end("")
        body: dict[str, Any] = {"domain": _covering(pattern, question).text}
        if hosts is not None:
            body = {"domains": list(hosts.patterns), "note": hosts.note}
        if said == "hour":
            body["for"] = HOUR
        elif said == "stop":
            body["until"] = "stop"
        rules = rules_to_put(body, "deny" if said == "never" else "allow")
        # Of a set it is the one that covers the question.
        rule = next((each.pattern for each in rules if _covers(each.pattern, question)), None)
        if rule is None:
            raise bad(f"none of the patterns covers {question.pattern}")
        never = await self._egress.unasked(sandbox, all_of=all_of)
        if said != "never":
            await asyncio.to_thread(_check_unasked, [each.pattern for each in rules], never)
        after: dict[str, Any] = {
            "answer": said,
            "waited": question.waiting,
            "rule": rule.text,
            "scope": "account" if all_of else "sandbox",
        }
        if hosts is not None:
            after["rules"] = [each.pattern.text for each in rules]
        recorded = answer_record(about, sandbox, after)
        scope = None if all_of else sandbox.id
        done = await self._egress.put(scope, rules, also=recorded, keep=hosts is not None, answers=True)
        put = tuple(each.pattern for each in done.rules)
        return AnswerEffect(question, sandbox, rule.text, question.waiting, put)

    def cell_of(self, identity: str) -> str | None:
        """Whose open question has this id; None where there is none."""
        found = (cell for cell, asked in self._open.items() for each in asked if each.id == identity)
        return next(found, None)

    def _token_of(self, only: Collection[str] | None) -> int:
        if only is None:
            return self._token
        return max((self._changed.get(each, 0) for each in only), default=0) or self._first

    async def _sandboxes(self, cells: set[str]) -> dict[str, StoredSandbox]:
        if not cells:
            return {}

        def work(connection: sqlite3.Connection) -> dict[str, StoredSandbox]:
            return {each.id: each for each in sandboxes.all_of(connection) if each.id in cells}

        return await self._store.read(work)


def _question(cell: str, given: object) -> CellQuestion | None:
    """Read a question as a worker tells it; None for what is none."""
    if not isinstance(given, Mapping):
        return None
    said = cast("Mapping[str, Any]", given)
    # A gateway from before knows no requests.
    numbers = [said.get(key, 0) for key in ("port", "since", "last", "count", "waiting", "requests")]
    if not all(type(each) is int and 0 <= each <= _LATEST for each in numbers):
        return None
    port, since, last, count, waiting, requests = cast("list[int]", numbers)
    name, reason = said.get("host"), said.get("reason")
    if not isinstance(name, str) or not 0 < port < 65_536:
        return None
    try:
        host = canonical_host(name)
    except HostError:
        return None
    spoke = str(said.get("protocol", ""))[:16]
    words = clean(reason, limit=_MOST_REASON) if isinstance(reason, str) else ""
    identity = question_id(cell, host, port, since)
    ends = _ends(said.get("ends"))
    return CellQuestion(identity, cell, host, port, spoke, since, last, count, waiting, requests, words, ends)


def _ends(given: object) -> Ends | None:
    """The two ends of a connection as a worker tells them; None for what is none."""
    match given:
        case [str() as address, int() as port, str() as peer, int() as peer_port] if (
            0 < port < 65_536 and 0 < peer_port < 65_536 and max(len(address), len(peer)) <= _LONGEST_ADDRESS
        ):
            return Ends(address, port, peer, peer_port)
        case _:
            return None


def _check_unasked(rules: Iterable[Pattern], never: Mapping[Pattern, str]) -> None:
    """Refuse an answer that would open what no person is asked about.

    Raises:
        HttpError: it would.
    """
    index = PatternIndex(never)
    for rule in rules:
        closed = index.overlapping(rule)
        if closed is not None:
            of = f" of {never[closed]}" if never[closed] else ""
            raise bad(
                f"{rule.text} would open what [ask] never{of} has: {closed.text}; irons egress allow puts such a rule"
            )


def _gone(identity: str) -> HttpError:
    return missing(f"there is no open question {identity}", "irons ask --list shows those there are")


def _covering(pattern: str | None, question: CellQuestion) -> Pattern:
    """The pattern of a rule: that of the question, or a wider one that covers it."""
    if pattern is None:
        return read_pattern(question.pattern)
    try:
        found = read_pattern(pattern)
    except ValueError as error:
        raise bad(f"{pattern[:80]!r}: {error}") from error
    if not _covers(found, question):
        raise bad(f"{found.text} does not cover {question.pattern}")
    return found


def _covers(pattern: Pattern, question: CellQuestion) -> bool:
    return pattern.covers_host(question.host) and pattern.covers_port(question.port)
