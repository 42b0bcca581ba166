"""What a conversation wants done, in order. Whoever cannot do one says so with an event, and leaves the rest undone.

All are tuples: one that is equal to another may still be of another class.
"""

from __future__ import annotations

from enum import Enum
from typing import NamedTuple

from irons_local.gateway.conversation.events import Side
from irons_local.gateway.decide.verdicts import Judged, RefusedError
from irons_policy.addresses import Address
from irons_policy.causes import Cause, Outcome
from irons_policy.decide import Live
from irons_policy.hostnames import Host


class Waits(Enum):
    """What a connection is held for."""

    # Members are compared by identity; an Enum's own hash is that of a string.
    __hash__ = object.__hash__

    BEGINNING = "the client's first byte"
    FIRST_LINE = "the end of the first line"
    HELLO = "the end of a ClientHello"
    HEAD = "the end of a request's head"
    REQUEST = "the first request"
    FRAME = "the end of a frame"
    MORE = "more bytes, to tell what the last ones are"
    ASKED = "an answer from outside"
    NAME = "the addresses of a name"
    DIAL = "a server"
    ANSWER = "the server's first words"
    CLOSING = "the client's end, as the server has ended"


class Names(NamedTuple):
    """May a connection go to these names?

    Attributes:
        host: the name it was opened to, or was judged by before; None for none.
        where: the address it was opened to.
        port: the port it was opened to.
        claimed: the names it says in the clear.
        protocol: what says them.
        proxied: they are sent as to a proxy, in an absolute target.
        reached: its server is reached already.
        early: the verdict without the claimed names is asked for; these are still to come.
    """

    host: Host | None
    where: Host
    port: int
    claimed: tuple[Host, ...]
    protocol: str
    proxied: bool = False
    reached: bool = False
    early: bool = False


class Addresses(NamedTuple):
    """Which of these addresses may be dialled for a host?"""

    judged: Judged
    port: int
    protocol: str
    addresses: tuple[Address, ...]


class ByName(NamedTuple):
    """May the upstream proxy be asked for this host by its name? Answered by `Verdict` or `Denied`.

    Attributes:
        judged: the verdict on the host.
        port: the port it is asked for at.
        protocol: what is spoken.
    """

    judged: Judged
    port: int
    protocol: str


class Standing(NamedTuple):
    """May a connection go on under the rules as they are now? `Cut` is the answer where it may not.

    Attributes:
        live: what it was judged by, once something outside may be reached.
        mismatched: it goes on only because the mode lets two names pass on one connection.
    """

    live: Live | None
    mismatched: bool


class Judge(NamedTuple):
    """Apply the policy."""

    question: Names | Addresses | ByName | Standing


class Open(NamedTuple):
    """Write the opening record, before anything else is done."""

    host: Host


class Speaks(NamedTuple):
    """It speaks this protocol, in every record from here on."""

    protocol: str


class Lookup(NamedTuple):
    """Say what is known of a host's addresses without asking anyone, and whether the upstream proxy resolves it."""

    host: Host


class Reach(NamedTuple):
    """Write that something outside may hear of it from here on; take what a server costs."""

    host: Host


class Resolve(NamedTuple):
    """Ask for the addresses of a name.

    Attributes:
        host: the name.
        within: seconds after which it counts as not resolved; None for as long as it takes.
    """

    host: Host
    within: float | None = None


class Dial(NamedTuple):
    """Connect to the first of these addresses that answers."""

    addresses: tuple[Address, ...]
    port: int


class DialName(NamedTuple):
    """Have the upstream proxy resolve a host and connect to it."""

    host: Host
    port: int


class Choose(NamedTuple):
    """Write the verdict record, before the address in it is dialled."""

    judged: Judged
    address: Address | None


class Mention(NamedTuple):
    """Write records of other names, which only the mode lets pass."""

    judged: Judged


class Forward(NamedTuple):
    """Send bytes.

    Attributes:
        to: who hears them.
        data: the bytes.
        own: they are this gateway's own words, and no bytes of the connection.
    """

    to: Side
    data: bytes
    own: bool = False


class Pass(NamedTuple):
    """From here on this side's bytes go to the other without being shown here; its end still is."""

    side: Side


class Stop(NamedTuple):
    """This side's bytes are shown here again; what was taken of them has gone on."""

    side: Side


class Finish(NamedTuple):
    """Tell a side that nothing more comes."""

    to: Side


class Hold(NamedTuple):
    """Nothing goes on until something has come, and nothing more than `seconds`; one replaces another.

    Attributes:
        waits: what for.
        seconds: how long; None for as long as both sides are there.
        reason: more of it, for people.
    """

    waits: Waits
    seconds: float | None
    reason: str = ""


class Refuse(NamedTuple):
    """Write a refusal.

    Attributes:
        error: what is refused and why.
        reached: the connection itself was let through; what is refused came later on it.
    """

    error: RefusedError
    reached: bool


class Close(NamedTuple):
    """End the connection, then write its closing record.

    Attributes:
        host: the host that it was about.
        judged: the verdict on it; None for none.
        text: one line for the log.
        outcome: what became of it.
        cause: what ended it; None where its verdict's cause stays.
        words: the last for the client.
        reset: both sides see a reset, the client after the words where there are any.
        answers: relay first what the server still answers.
        drain: read first, for a moment, what the client still says, so that it hears what was sent to it last.
    """

    host: Host
    judged: Judged | None
    text: str
    outcome: Outcome
    cause: Cause | None = None
    words: bytes = b""
    reset: bool = False
    answers: bool = False
    drain: bool = False


Action = (
    Judge | Open | Speaks | Lookup | Reach | Resolve | Dial | DialName | Choose | Mention
    | Forward | Pass | Stop | Finish | Hold | Refuse | Close
)  # fmt: skip
