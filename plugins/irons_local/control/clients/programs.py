"""The programs behind questions: asked of the keeper, few at once and of each cell seldom, and nothing waits for them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, Final, NamedTuple

from irons.text import clean
from irons_local.cell.layout import Ends

MOST_AT_ONCE: Final = 2
"""Programs that are looked for at once; those of one cell one after the other."""
BURST: Final = 8
"""Programs of one cell that are looked for in a row."""
EVERY: Final = 5.0
"""Seconds after which one more of that cell is."""
MOST_WORDS: Final = 200
"""Characters of a program's words."""
_MOST_CELLS: Final = 1_000


class QuestionProgram(NamedTuple):
    """The program that holds the connection of a question, in its sandbox's words.

    Attributes:
        words: its name and arguments, cleaned; empty where they are not known.
        pid: its number inside; None where that is not known.
    """

    words: str = ""
    pid: int | None = None


UNKNOWN: Final = QuestionProgram()


class ProgramWanted(NamedTuple):
    """A question whose program is looked for.

    Attributes:
        id: the question's id.
        cell: the sandbox.
        ends: the two ends of a connection that waits.
    """

    id: str
    cell: str
    ends: Ends


FindsProgram = Callable[[str, Ends], Awaitable[Mapping[str, Any] | None]]
"""Asks the keeper for the program of a cell that holds a connection; nothing where it is not known, None where no one looked."""


class Programs:
    """Knows the programs behind the open questions.

    Args:
        find: asks the keeper.
        found: called with a question's cell once its program is known.
        clock: seconds that only ever grow.
    """

    def __init__(
        self,
        find: FindsProgram,
        found: Callable[[str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find, self._found, self._clock = find, found, clock
        self._known: dict[str, QuestionProgram] = {}
        self._wanted: dict[str, ProgramWanted] = {}
        # The connection of each question that was looked for last: once is enough.
        self._tried: dict[str, Ends] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        # Until when what each cell has had is its share of (the generic cell rate algorithm).
        self._spent: dict[str, float] = {}
        self._later: asyncio.TimerHandle | None = None

    def of(self, identity: str) -> QuestionProgram:
        """The program of a question."""
        return self._known.get(identity, UNKNOWN)

    def want(self, questions: Iterable[ProgramWanted]) -> None:
        """Look for the programs of these questions, soon; those that are known or were looked for are passed over."""
        for each in questions:
            if each.id not in self._known and self._tried.get(each.id) != each.ends:
                self._wanted[each.id] = each
        self._begin()

    def keep(self, open_ids: Collection[str]) -> None:
        """Forget all questions but these."""
        for kept in (self._known, self._wanted, self._tried):
            for identity in [identity for identity in kept if identity not in open_ids]:
                kept.pop(identity, None)

    def _begin(self) -> None:
        for each in tuple(self._wanted.values()):
            if len(self._running) >= MOST_AT_ONCE:
                return
            if each.cell in self._running:
                continue
            if not self._may(each.cell):
                self._begin_later()
            else:
                del self._wanted[each.id]
                self._tried[each.id] = each.ends
                task = self._running[each.cell] = asyncio.create_task(self._look(each))
                task.add_done_callback(partial(self._done, each.cell))

    def _begin_later(self) -> None:
        """Begin again once a cell may have another share, whether or not anyone asks until then."""
        if self._later is None:
            self._later = asyncio.get_running_loop().call_later(EVERY, self._begin_again)

    def _begin_again(self) -> None:
        self._later = None
        self._begin()

    def _done(self, cell: str, _task: asyncio.Task[None]) -> None:
        del self._running[cell]
        self._begin()

    def _may(self, cell: str) -> bool:
        now = self._clock()
        spent = max(self._spent.get(cell, now), now)
        if spent > now + (BURST - 1) * EVERY:
            return False
        if len(self._spent) >= _MOST_CELLS:
            self._spent = {name: until for name, until in self._spent.items() if until > now}
        self._spent[cell] = spent + EVERY
        return True

    async def _look(self, wanted: ProgramWanted) -> None:
        told = await self._find(wanted.cell, wanted.ends)
        if told is None:
            # A keeper that was busy or away; whoever asks for the questions next has it looked for again.
            self._tried.pop(wanted.id, None)
            return
        words, pid = told.get("program"), told.get("pid")
        # It may have been answered by now.
        if isinstance(words, str) and words and wanted.id in self._tried:
            number = pid if type(pid) is int and pid > 0 else None
            self._known[wanted.id] = QuestionProgram(clean(words, limit=MOST_WORDS), number)
            self._found(wanted.cell)


async def finds_nothing(_cell: str, _ends: Ends) -> Mapping[str, Any] | None:
    """Know no program."""
    return {}
