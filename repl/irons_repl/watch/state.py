"""The state of one view, and what each key does to it; without I/O.

A key acts on what the last picture showed. What would change a rule is asked in the foot line first; nothing is decided within
half a second after the list, or the question, has changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from irons.asking.answers import KeyAnswer
from irons.asking.screen import DOWN, UP, AskScreen
from irons.record import NamedTuple
from irons_policy.event import Event
from irons_repl.status.mode_line import ModeFacts
from irons_repl.watch.listing import SORTS, Sort, entries, ordered, part
from irons_repl.watch.model import LogEntry, Model
from irons_repl.watch.paging import Paging
from irons_repl.watch.standing import KnownRules, Proposal, Verb

if TYPE_CHECKING:
    from irons.client.models.egress import ListedRule
    from irons.client.models.questions import OpenQuestion

CALM = 0.5
"""Seconds for which the list, or a question, has to stay as it is before a key decides something."""

RESORT = 1.0
"""Seconds between two times that the list is put in order while events come in."""

LONGEST_FILTER = 60
"""Characters of a filter."""


class RuleEdit(NamedTuple):
    """A rule that was changed here.

    Attributes:
        proposal: What was asked for.
        before: The rule of that pattern and scope as it was; None where there was none.
        after: The rule as it was right after.
    """

    proposal: Proposal
    before: ListedRule | None
    after: ListedRule | None

    @property
    def back(self) -> str:
        """What undoing does, as a question has it."""
        where = f"for {self.proposal.scope}"
        if self.before is None:
            return f"undo: remove {self.proposal.verb} {self.proposal.rule} {where}"
        return f"undo: {self.before.list} {self.proposal.pattern} {where}, as before"


class Apply(NamedTuple):
    """Have a rule made."""

    proposal: Proposal


class Undo(NamedTuple):
    """Have a change taken back."""

    change: RuleEdit


class CloseView(NamedTuple):
    """Close the view."""


class AnswerQuestion(NamedTuple):
    """Send the answer to a question of mode `ask`."""

    wanted: KeyAnswer
    asked: OpenQuestion


Effect = Apply | Undo | CloseView | AnswerQuestion

OPENING = ("!", "f2")
"""Keys that open the questions of mode `ask`. No other key does: what comes by itself changes the meaning of none."""


class Question(NamedTuple):
    """What is asked in the foot line, what a yes does, and since when it is on the screen (None: not yet)."""

    text: str
    effect: Apply | Undo
    since: float | None = None


class Drawn(NamedTuple):
    """What the last picture showed.

    Attributes:
        hosts: The hosts in it, by their targets.
        top: The place of the first of them in the whole list.
        log: The events in it.
        log_top: The place of the first of them among all that fit the filter.
        log_all: How many these are.
        host: The chosen host.
        entry: The chosen event.
        changed: When the part of the focused list changed last by itself.
    """

    hosts: tuple[str, ...] = ()
    top: int = 0
    log: tuple[LogEntry, ...] = ()
    log_top: int = 0
    log_all: int = 0
    host: str | None = None
    entry: LogEntry | None = None
    changed: float = float("-inf")


@dataclass
class ViewState:
    """One view. `press` takes keys, `lay_out` says what a picture of some size shows."""

    sandbox: str | None = None
    model: Model = field(default_factory=Model)
    standing: KnownRules = field(default_factory=lambda: KnownRules(None))
    mode: ModeFacts = field(default_factory=ModeFacts)
    trouble: str = ""
    said: str = ""
    held: Model | None = None
    focus: Literal["hosts", "log"] = "hosts"
    sort: Sort = "decision"
    wanted: str = ""
    typing: bool = False
    selected: str | None = None
    kept: bool = False
    """Whether the choice stays with its host. Until the rules are known, or a key moves it, the first host is chosen."""
    at: int | None = None
    """The number of the chosen event; None follows the newest."""
    shown: Literal["lists", "event", "help", "asked"] = "lists"
    asked: AskScreen = field(default_factory=AskScreen)
    """The questions of mode `ask`."""
    event: Event | None = None
    paging: Paging = field(default_factory=Paging)
    """The part of the event, or of the keys, that is shown."""
    question: Question | None = None
    changes: list[RuleEdit] = field(default_factory=list)
    busy: bool = False
    drawn: Drawn = field(default_factory=Drawn)
    order: tuple[str, ...] = ()
    undecided: int = 0
    """Hosts that need a decision, as of the last time that the list was put in order."""
    _ordered: float = float("-inf")
    _ruled: bool = False
    """Whether the rules were known when the list was put in order."""
    _moved: bool = True
    _answerable: bool = False
    """Whether the last picture showed that the question can be answered: a yes that was typed before decides nothing, however late it is read."""

    @property
    def paused(self) -> bool:
        """Whether the picture, or the log, stands still while events come in."""
        return self.held is not None or self.at is not None

    @property
    def view(self) -> Model:
        """What the picture shows: what was read, or what had been read when it was held."""
        return self.model if self.held is None else self.held

    # What is drawn

    def lay_out(self, hosts: int, log: int, now: float) -> Drawn:
        """Return what a picture with room for so many hosts and events shows, and note it as drawn at `now`."""
        before = self.drawn
        self._put_in_order(now)
        if not self.kept:
            self.selected = self.order[0] if self.order else None
            self.kept = self._ruled
        elif self.selected not in self.order:
            # It made room, or the filter leaves it out: what takes its place is near it.
            at = min(before.top + _index(before.hosts, self.selected), len(self.order) - 1)
            self.selected = self.order[at] if self.order else None
        chosen = self.order.index(self.selected) if self.selected is not None else 0
        top, part_of_hosts = part(self.order, before.top, chosen, hosts)
        every = entries(self.view, self.wanted)
        log_chosen = self._entry_index(every)
        log_top, part_of_log = part(
            every, before.log_top if self.at is not None else len(every), log_chosen, log
        )
        drawn = Drawn(
            tuple(part_of_hosts),
            top,
            tuple(part_of_log),
            log_top,
            len(every),
            self.selected,
            every[log_chosen] if every else None,
            before.changed,
        )
        if not self._moved and self._focused(drawn) != self._focused(before):
            drawn = drawn._replace(changed=now)
        self._moved = False
        self.drawn = drawn
        if self.question is not None and self.question.since is None:
            self.question = self.question._replace(since=now)
        self._answerable = self.armed(now) and now - drawn.changed >= CALM
        return drawn

    def latest_of(self, event: Event) -> Event:
        """Return an event as it is known now: it may have ended, or been repeated."""
        if event.id is None:
            return event
        return next(
            (entry.event for entry in reversed(self.model.latest) if entry.event.id == event.id), event
        )

    def armed(self, now: float) -> bool:
        """Tell whether an answer to the question counts now."""
        question = self.question
        return question is not None and question.since is not None and now - question.since >= CALM

    def _put_in_order(self, now: float) -> None:
        # While a question is open the list stays as it is.
        learned = self.standing.known and not self._ruled
        due = (learned or now - self._ordered >= RESORT) and not self._moved and self.question is None
        if not self.order or due or self._ordered == float("-inf"):
            self.order = ordered(self.view, self.standing, self.sort, self.wanted)
            self.undecided = sum(self.standing.undecided(host) for host in self.view.hosts.values())
            self._ordered = now
            self._ruled = bool(self.order) and self.standing.known

    def _again(self) -> None:
        """Put the list in order at the next picture: the person asked for another one."""
        self._ordered = float("-inf")
        self._moved = True

    def _focused(self, drawn: Drawn) -> tuple[object, ...]:
        if self.focus == "hosts":
            return (*drawn.hosts, drawn.host)
        return (*(entry.number for entry in drawn.log), drawn.entry and drawn.entry.number)

    def _entry_index(self, every: Sequence[LogEntry]) -> int:
        if self.at is None or not every:
            return max(0, len(every) - 1)
        at = self.at
        return next((index for index, entry in enumerate(every) if entry.number >= at), len(every) - 1)

    # Keys

    def press(self, key: str, now: float, *, alone: bool = True) -> Effect | None:
        """Take a key, by its name or as the character that it is; return what is to be done.

        Args:
            key: The key.
            now: The time.
            alone: It was not typed together with others, as what is pasted is.
        """
        if key in ("c-c", "c-d"):
            return CloseView()
        if self.question is not None:
            return self._answer(key)
        if self.typing:
            self._type(key)
            return None
        self.said = ""
        if self.shown == "asked":
            return self._answer_asked(key, alone=alone)
        if key in OPENING:
            if self.asked.question is None:
                self.said = "Nothing is asked"
            else:
                self.shown, self.event = "asked", None
            return None
        if self.shown == "help":
            self._read(key)
            return None
        if key in ("a", "d", "u"):
            self._ask(key, now)
        elif self.shown == "event":
            self._read(key)
        elif key in ("q", "escape"):
            if key == "escape" and self.wanted:
                self.wanted = ""
                self._again()
                return None
            return CloseView()
        else:
            self._go(key)
        return None

    def _answer_asked(self, key: str, *, alone: bool) -> Effect | None:
        """Take a key for the questions of mode `ask`."""
        if key in ("q", "escape", "enter", "tab", *OPENING):
            self.shown = "lists"
            self.asked.put_back()
            self._again()
            return None
        if not alone:
            return None
        asked = self.asked.question
        wanted = self.asked.key({"up": UP[0], "down": DOWN[0]}.get(key, key))
        return AnswerQuestion(wanted, asked) if wanted is not None and asked is not None else None

    def paste(self, text: str) -> None:
        """Take pasted text: a filter takes it in; it decides nothing."""
        if self.typing:
            self.wanted = "".join(filter(str.isprintable, self.wanted + text))[:LONGEST_FILTER]
            self._again()
        else:
            self.question = None
            self.said = "Pasted text does nothing here"

    def done(self, text: str, change: RuleEdit | None = None) -> None:
        """Take what came of an effect: what to say, and the change that can be undone."""
        self.busy = False
        self.said = text
        if change is not None:
            self.changes.append(change)

    def undone(self, text: str, *, gone: bool) -> None:
        """Take what came of undoing the last change; `gone` where it can't be undone again."""
        self.busy = False
        self.said = text
        if gone and self.changes:
            self.changes.pop()

    def _answer(self, key: str) -> Effect | None:
        question = self.question
        if key == "y" and not self._answerable:
            # Typed before the question could be read.
            return None
        self.question = None
        if question is None or key != "y":
            self.said = "Nothing was changed"
            return None
        self.busy = True
        self.said = f"{question.text} …"
        return question.effect

    def _ask(self, key: str, now: float) -> None:
        if self.busy:
            self.said = "The last change is still on its way"
            return
        if self.shown == "lists" and (
            now - self.drawn.changed < CALM or self.selected != self.drawn.host or self._moved
        ):
            self.said = "The list has just changed: press the key again; space holds the picture"
            return
        if key == "u":
            if not self.changes:
                self.said = "There is nothing to undo: no rule was changed here"
                return
            change = self.changes[-1]
            self._pose(Question(change.back, Undo(change)))
            return
        event = self._event()
        if event is None:
            return
        verb: Verb = "allow" if key == "a" else "deny"
        proposal = self.standing.propose(verb, event)
        if isinstance(proposal, str):
            self.said = proposal
            return
        self._pose(Question(f"{verb} {proposal.rule} for {proposal.scope}", Apply(proposal)))

    def _pose(self, question: Question) -> None:
        self.question, self._answerable = question, False

    def _event(self) -> Event | None:
        """Return the event that keys are about: as the last picture showed it."""
        if self.shown == "event":
            return self.event
        if self.focus == "log":
            return self.drawn.entry.event if self.drawn.entry is not None else None
        host = self.view.hosts.get(self.drawn.host) if self.drawn.host is not None else None
        if host is None:
            return None
        return next(reversed(host.against.values())) if host.against else host.last

    def _type(self, key: str) -> None:
        if key == "enter":
            self.typing = False
        elif key == "escape":
            self.typing, self.wanted = False, ""
        elif key == "backspace":
            self.wanted = self.wanted[:-1]
        elif len(key) == 1 and key.isprintable() and len(self.wanted) < LONGEST_FILTER:
            self.wanted += key
        self._again()

    def _open(self, page: Literal["event", "help"]) -> None:
        self.shown, self.paging = page, Paging()

    def _read(self, key: str) -> None:
        """Take a key for an event as a whole, or for the keys: it scrolls what does not fit, or closes the page."""
        moved = self.paging.moved(key)
        if moved is not None:
            self.paging = moved
        elif key == "?" and self.shown == "event":
            self._open("help")
        else:
            self.shown, self.event = "lists", None

    def _go(self, key: str) -> None:
        if key in _STEPS:
            self._step(_STEPS[key])
        elif key in ("home", "g", "end", "G"):
            self._step(-(10**9) if key in ("home", "g") else 10**9)
        elif key == "tab":
            self.focus = "log" if self.focus == "hosts" else "hosts"
            self._moved = True
        elif key == "enter":
            self.event = self._event()
            if self.event is not None:
                self._open("event")
        elif key == "/":
            self.typing = True
        elif key == "s":
            self.sort = SORTS[(SORTS.index(self.sort) + 1) % len(SORTS)]
            self._again()
        elif key == "?":
            self._open("help")
        elif key == " ":
            # Where it is let go, what comes to stand elsewhere by that is a change as any other.
            self.held = self.model.copy() if self.held is None else None

    def _step(self, by: int) -> None:
        if abs(by) == _PAGE:
            shown = len(self.drawn.hosts if self.focus == "hosts" else self.drawn.log)
            by = max(1, shown - 1) * (1 if by > 0 else -1)
        self._moved = True
        if self.focus == "hosts":
            if self.order:
                self.kept = True
                at = self.order.index(self.selected) if self.selected in self.order else 0
                self.selected = self.order[max(0, min(len(self.order) - 1, at + by))]
            return
        every = entries(self.view, self.wanted)
        if every:
            at = self._entry_index(every) + by
            # At its end the log goes on by itself.
            self.at = None if at >= len(every) - 1 else every[max(0, at)].number


_PAGE = 10**6
_STEPS = {"up": -1, "k": -1, "down": 1, "j": 1, "pageup": -_PAGE, "pagedown": _PAGE}


def _index(targets: tuple[str, ...], target: str | None) -> int:
    return targets.index(target) if target in targets else 0
