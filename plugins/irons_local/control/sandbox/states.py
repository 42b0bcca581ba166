"""The lifecycle of a sandbox as one table: what each verb does in each state.

`lifecycle` asks the table before it does anything; docs/architecture.md prints it. A cell is the next state (the same one: the
sandbox stays as it is, and the request succeeds), a refusal, or None for what cannot happen or has no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from irons_local.control.store import sandboxes
from irons_local.control.store.sandboxes import StoredSandbox


class State(Enum):
    """Where a sandbox is: its status, and for a busy status whether a task of this control plane works on it."""

    CREATING = "creating"
    STARTING = "starting"
    RUNNING = "running"
    READY = "ready"
    STOPPING = "stopping"
    STOPPED = "stopped"
    ERROR = "error"
    DELETING = "being removed"
    CREATING_LEFT = "creating, interrupted"
    STARTING_LEFT = "starting, interrupted"
    STOPPING_LEFT = "stopping, interrupted"

    @property
    def status(self) -> str:
        """The status that the API shows and the store keeps."""
        return sandboxes.STOPPING if self is State.DELETING else self.doing.partition(",")[0]

    @property
    def doing(self) -> str:
        """What an error text says that the sandbox is."""
        return self.value.removesuffix(", interrupted")


class VerbRefusal(NamedTuple):
    """A verb that a state refuses.

    Attributes:
        text: the refusal's text; has places for `name` and `doing`.
        made: True refuses only a sandbox that was made once, False only one that never was; None refuses both.
    """

    text: str
    made: bool | None = None

    def applies(self, *, made: bool) -> bool:
        """Whether it concerns a sandbox that was, or was never, made."""
        return self.made is None or self.made == made


class Verb(Enum):
    """What people and clocks ask for, then what happens by itself; the values are the columns of `StateRow`."""

    CREATE = "create"
    START = "start"
    STOP = "stop"
    DELETE = "delete"
    KEYS = "keys"
    MADE = "made"
    UP = "up"
    ENDED = "ended"
    FOUND_RUNNING = "found_running"
    FOUND_ENDED = "found_ended"


ASKED = (Verb.CREATE, Verb.START, Verb.STOP, Verb.DELETE, Verb.KEYS)
"""The verbs of the API; CREATE is of another sandbox by the same name."""

Cell = State | VerbRefusal | None


class StateRow(NamedTuple):
    """What each verb does in one state.

    Attributes:
        create: a sandbox of the same name is asked for.
        start: it is to start.
        stop: it is to stop.
        delete: it is to be removed.
        keys: other keys are to open it.
        made: its files are laid out.
        up: its machine runs.
        ended: its machine ended without being asked to.
        found_running: a new control plane finds that its machine runs.
        found_ended: a new control plane finds that its machine does not run.
    """

    create: Cell
    start: Cell
    stop: Cell
    delete: Cell
    keys: Cell
    made: Cell = None
    up: Cell = None
    ended: Cell = None
    found_running: Cell = None
    found_ended: Cell = None


_TAKEN = VerbRefusal("there is a sandbox named {name!r} already")
_LET_END = VerbRefusal("{name} is {doing}; wait until it has ended")
_GOING = VerbRefusal("{name} is {doing}")
_STOP_FIRST = VerbRefusal("{name} is {doing}; stop it first")
_NOT_MADE = VerbRefusal("{name} is {doing}; its keys can be changed once it is made")
_UNTIL_MADE = _NOT_MADE._replace(made=False)


def _table() -> Mapping[State, StateRow]:
    s = State
    return {
        s.CREATING: StateRow(_TAKEN, s.CREATING, s.STOPPING, s.DELETING, _UNTIL_MADE, made=s.STARTING),
        s.STARTING: StateRow(
            _TAKEN, s.STARTING, s.STOPPING, s.DELETING, _UNTIL_MADE, made=s.STARTING, up=s.READY
        ),
        s.RUNNING: StateRow(
            _TAKEN,
            s.RUNNING,
            s.STOPPING,
            _STOP_FIRST,
            _UNTIL_MADE,
            ended=s.STOPPING,
            found_running=s.READY,
            found_ended=s.STOPPING,
        ),
        s.READY: StateRow(
            _TAKEN,
            s.READY,
            s.STOPPING,
            _STOP_FIRST,
            _UNTIL_MADE,
            ended=s.STOPPING,
            found_running=s.READY,
            found_ended=s.STOPPING,
        ),
        s.STOPPING: StateRow(_TAKEN, _LET_END, s.STOPPING, _STOP_FIRST, _UNTIL_MADE),
        s.STOPPED: StateRow(
            _TAKEN,
            s.STARTING,
            s.STOPPED,
            s.DELETING,
            _UNTIL_MADE,
            found_running=s.READY,
            found_ended=s.STOPPED,
        ),
        s.ERROR: StateRow(
            _TAKEN._replace(made=True),
            s.STARTING,
            s.STOPPING,
            s.DELETING,
            _UNTIL_MADE,
            found_running=s.ERROR,
            found_ended=s.ERROR,
        ),
        s.DELETING: StateRow(
            _TAKEN,
            _LET_END,
            _GOING,
            s.DELETING,
            _NOT_MADE,
            found_running=s.DELETING,
            found_ended=s.DELETING,
        ),
        s.CREATING_LEFT: StateRow(
            _TAKEN,
            s.STARTING,
            s.STOPPING,
            s.DELETING,
            _UNTIL_MADE,
            found_running=s.ERROR,
            found_ended=s.ERROR,
        ),
        s.STARTING_LEFT: StateRow(
            _TAKEN,
            s.STARTING,
            s.STOPPING,
            s.DELETING,
            _UNTIL_MADE,
            found_running=s.READY,
            found_ended=s.ERROR,
        ),
        s.STOPPING_LEFT: StateRow(
            _TAKEN,
            s.STARTING,
            s.STOPPING,
            _STOP_FIRST,
            _UNTIL_MADE,
            found_running=s.STOPPING,
            found_ended=s.STOPPING,
        ),
    }


TABLE: Mapping[State, StateRow] = _table()
"""The lifecycle. Where `create` leads to a state, the one that is there makes room first."""

_LEFT = {
    State.CREATING: State.CREATING_LEFT,
    State.STARTING: State.STARTING_LEFT,
    State.STOPPING: State.STOPPING_LEFT,
}


def state_of(sandbox: StoredSandbox, *, working: bool) -> State:
    """Return the state of a sandbox; `working` says whether a task of this control plane works on it."""
    if sandbox.deleting:
        return State.DELETING
    state = State(sandbox.status)
    return state if working else _LEFT.get(state, state)


def refusal(sandbox: StoredSandbox, state: State, verb: Verb) -> str | None:
    """Return why `verb` is refused for a sandbox in `state`; None where it is not."""
    cell = _cell(state, verb)
    if not isinstance(cell, VerbRefusal) or not cell.applies(made=sandbox.username is not None):
        return None
    return cell.text.format(name=sandbox.name, doing=state.doing)


def following(state: State, verb: Verb) -> State:
    """Return the state that `verb` leads to, once it is not refused; `state` itself where it has no effect."""
    cell = _cell(state, verb)
    return cell if isinstance(cell, State) else state


def statuses(verb: Verb) -> tuple[str, ...]:
    """Return the statuses in which `verb` has an effect."""
    return tuple(state.status for state in TABLE if isinstance(_cell(state, verb), State))


def _cell(state: State, verb: Verb) -> Cell:
    cell: Cell = getattr(TABLE[state], verb.value)
    return cell
