"""What goes into a conversation: bytes, ends, answers to what it asked, and what changed around it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from irons_local.gateway.decide.verdicts import Judged, RefusedError
from irons_local.gateway.http1.absolute import Forwarding
from irons_policy.addresses import Address
from irons_policy.causes import Cause
from irons_policy.hostnames import Host

if TYPE_CHECKING:
    from irons_local.gateway.conversation.actions import Hold


class Side(Enum):
    """Who says or hears something."""

    # Members are compared by identity; an Enum's own hash is that of a string.
    __hash__ = object.__hash__

    other: Side
    """The side at the other end."""

    CLIENT = "client"
    SERVER = "server"


CLIENT, SERVER = Side.CLIENT, Side.SERVER
"""The two, looked up by name: an attribute of an `Enum` costs more than a call."""
CLIENT.other, SERVER.other = SERVER, CLIENT


class Accepted(NamedTuple):
    """A program has connected.

    Attributes:
        where: the address it connected to.
        port: the port it connected to.
        name: the name that this address stands for, or None.
        synthetic: the address can only stand for a name.
        allowed: the rules allow what is known so far.
        mode: the mode of the policy; None where no policy is known.
        sandbox: its title, for people.
    """

    where: Host
    port: int
    name: Host | None = None
    synthetic: bool = False
    allowed: bool = True
    mode: str | None = None
    sandbox: str = ""


class Bytes(NamedTuple):
    """One side has sent something."""

    side: Side
    data: bytes


class End(NamedTuple):
    """One side has closed its direction."""

    side: Side


class Passed(NamedTuple):
    """Both sides of a connection of which nothing is shown have closed, and each knows that the other has."""


class Broken(NamedTuple):
    """The connection broke; `how` is one line for the log."""

    how: str


class PolicyChanged(NamedTuple):
    """The sandbox has another policy, of this mode: what was asked, and what goes on, is asked again."""

    mode: str | None


class Cut(NamedTuple):
    """Something outside ends the connection.

    Attributes:
        ending: one line for the log.
        cause: the same for programs; None where the verdict's cause stays.
    """

    ending: str
    cause: Cause | None


class RecordFailed(NamedTuple):
    """A record could not be written: nothing more may be done but to end."""


class Verdict(NamedTuple):
    """What was asked about may go on; the answer to `Names`, at once or from outside while it is held."""

    judged: Judged


class Denied(NamedTuple):
    """What was asked about is refused; the answer to any question, and to an action that a limit forbids."""

    error: RefusedError


class Asked(NamedTuple):
    """Someone outside is asked first: `Verdict` or `Denied` follows.

    Attributes:
        reason: what is waited for, for people.
        seconds: how long.
        otherwise: the refusal that applies when they are over.
    """

    reason: str
    seconds: float
    otherwise: RefusedError


class Answered(NamedTuple):
    """Whoever was asked has answered: what is being asked is asked again."""


class Known(NamedTuple):
    """The addresses of a host that are known without a question; None where one is needed. The answer to `Lookup`."""

    addresses: tuple[Address, ...] | None


class ByProxy(NamedTuple):
    """The upstream proxy resolves the host; the other answer to `Lookup`."""


class Resolved(NamedTuple):
    """The addresses of a name; the answer to `Resolve`."""

    addresses: tuple[Address, ...]


class Unresolved(NamedTuple):
    """The name has no address; the other answer to `Resolve`."""

    reason: str


class Passing(NamedTuple):
    """The addresses that may be dialled, and what is recorded of each; the answer to `Addresses`."""

    judged: Mapping[Address, Judged]


class Dialling(NamedTuple):
    """Another address than the first is dialled next: it must be recorded first."""

    address: Address


class Reached(NamedTuple):
    """The server was connected to.

    Attributes:
        address: where it is; None where the upstream proxy has resolved its name.
        forwarding: how requests go to it; None where they go as they are.
    """

    address: Address | None
    forwarding: Forwarding | None = None


class Unreached(NamedTuple):
    """No server was connected to."""

    reason: str


class DeadlinePassed(NamedTuple):
    """The time of a hold is over.

    Attributes:
        hold: which one, the very object; one that has ended since is ignored.
        gone: a peer is gone, so nothing more is to be waited for.
    """

    hold: Hold
    gone: bool = False


Fact = (
    Verdict
    | Denied
    | Asked
    | Known
    | ByProxy
    | Resolved
    | Unresolved
    | Passing
    | Dialling
    | Reached
    | Unreached
)
Event = Bytes | End | Passed | Broken | PolicyChanged | Answered | Cut | RecordFailed | DeadlinePassed | Fact
