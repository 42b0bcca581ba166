"""What goes into a conversation: bytes, ends, answers to what it asked, and what changed around it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from irons_local.gateway.decide.verdicts import Judged, RefusedError
from irons_local.gateway.http1.absolute import Forwarding
from irons_policy.addresses import Address
from irons_policy.causes import Cause
from irons_policy.hostnames import Host


class Side(Enum):
    """Who says or hears something."""

    # Members are compared by identity; an Enum's own hash is that of a string.
    __hash__ = object.__hash__

    CLIENT = "client"
    SERVER = "server"

    @property
    def other(self) -> Side:
        """The side at the other end."""
        return Side.SERVER if self is Side.CLIENT else Side.CLIENT


@dataclass(frozen=True, slots=True)
class Accepted:
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


@dataclass(frozen=True, slots=True)
class Bytes:
    """One side has sent something."""

    side: Side
    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """One side has closed its direction."""

    side: Side


@dataclass(frozen=True, slots=True)
class Broken:
    """The connection broke; `how` is one line for the log."""

    how: str


@dataclass(frozen=True, slots=True)
class PolicyChanged:
    """The sandbox has another policy, of this mode: what was asked, and what goes on, is asked again."""

    mode: str | None


@dataclass(frozen=True, slots=True)
class Cut:
    """Something outside ends the connection.

    Attributes:
        ending: one line for the log.
        cause: the same for programs; None where the verdict's cause stays.
    """

    ending: str
    cause: Cause | None


@dataclass(frozen=True, slots=True)
class RecordFailed:
    """A record could not be written: nothing more may be done but to end."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was asked about may go on; the answer to `Names`, at once or from outside while it is held."""

    judged: Judged


@dataclass(frozen=True, slots=True)
class Denied:
    """What was asked about is refused; the answer to any question, and to an action that a limit forbids."""

    error: RefusedError


@dataclass(frozen=True, slots=True)
class Asked:
    """Someone outside is asked first: `Verdict` or `Denied` follows.

    Attributes:
        reason: what is waited for, for people.
        seconds: how long.
        otherwise: the refusal that applies when they are over.
    """

    reason: str
    seconds: float
    otherwise: RefusedError


@dataclass(frozen=True, slots=True)
class Known:
    """The addresses of a host that are known without a question; None where one is needed. The answer to `Lookup`."""

    addresses: tuple[Address, ...] | None


@dataclass(frozen=True, slots=True)
class ByProxy:
    """The upstream proxy resolves the host; the other answer to `Lookup`."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """The addresses of a name; the answer to `Resolve`."""

    addresses: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class Unresolved:
    """The name has no address; the other answer to `Resolve`."""

    reason: str


@dataclass(frozen=True, slots=True)
class Passing:
    """The addresses that may be dialled, and what is recorded of each; the answer to `Addresses`."""

    judged: Mapping[Address, Judged]


@dataclass(frozen=True, slots=True)
class Dialling:
    """An address is dialled next: it must be recorded first."""

    address: Address


@dataclass(frozen=True, slots=True)
class Reached:
    """The server was connected to.

    Attributes:
        address: where it is; None where the upstream proxy has resolved its name.
        forwarding: how requests go to it; None where they go as they are.
    """

    address: Address | None
    forwarding: Forwarding | None = None


@dataclass(frozen=True, slots=True)
class Unreached:
    """No server was connected to."""

    reason: str


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The time of a hold is over.

    Attributes:
        number: of which hold; one that has ended since is ignored.
    """

    number: int


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
Event = Bytes | End | Broken | PolicyChanged | Cut | RecordFailed | DeadlinePassed | Fact
