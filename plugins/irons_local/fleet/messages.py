"""The messages between a server and its members: which there are, and what each carries.

They are checked on arrival as those of `ipc.messages` are, in whose way they are written.
"""

# Annotations are read as data, so they are not postponed.
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple

from irons_local.fleet.token import MEMBER_NAME
from irons_local.ipc import fields
from irons_local.ipc.fields import BadMessageError
from irons_local.ipc.framing import Body
from irons_local.ipc.messages import checks_of, read_by
from irons_policy.event import LARGEST

PROTOCOL: Final = 1
"""Of the link; a server and a member with different ones do not work together."""
CHUNK: Final = 256 * 1024
"""Bytes of a log in one message."""
_RUN = re.compile(r"[0-9]{1,20}-[0-9]{1,10}-[0-9]{1,6}", re.ASCII)
_MOST_RUNS = 4096
_LONGEST = 64 * 1024


def run(value: object) -> str:
    """The name of a run of a member's log."""
    if not isinstance(value, str) or not _RUN.fullmatch(value):
        raise BadMessageError("that is not a run of a log")
    return value


def _runs(value: object) -> list[str]:
    """Names of runs, not too many."""
    found = fields.a_list(value)
    if len(found) > _MOST_RUNS:
        raise BadMessageError(f"{len(found)} runs are too many")
    return [run(each) for each in found]


def _member(value: object) -> str:
    """The name of a member."""
    if not isinstance(value, str) or not MEMBER_NAME.fullmatch(value):
        raise BadMessageError("that is not the name of a member")
    return value


def _short(value: object) -> str:
    """A text that is not long."""
    if not isinstance(value, str) or len(value) > _LONGEST:
        raise BadMessageError("a text is missing, or too long")
    return value


def _piece(value: object) -> bytes:
    """Bytes of a log, each as the character of its number."""
    if not isinstance(value, str) or len(value) > CHUNK:
        raise BadMessageError("a piece of a log is missing, or too large")
    try:
        return value.encode("latin-1")
    except UnicodeEncodeError:
        raise BadMessageError("a piece of a log is not bytes") from None


def text_of(piece: bytes) -> str:
    """How a message carries bytes."""
    return piece.decode("latin-1")


def _number(value: object) -> int:
    """A whole number, 0 or more, that a database can hold."""
    found = fields.number(value)
    if found > LARGEST:
        raise BadMessageError("a number is too large")
    return found


_Cell = Annotated[str, fields.sandbox_id]
_Text = Annotated[str, _short]
_Number = Annotated[int, _number]


# Server to member


class MakeMemberCell(NamedTuple):
    """Make a cell with a veth; answered with `name`, `pid` and `started` of the veth."""

    cell: _Cell


class AdoptMemberCell(NamedTuple):
    """Hold a cell again, by the process that holds it."""

    cell: _Cell
    pid: _Number
    started: _Number


class DropMemberCell(NamedTuple):
    """Let go of a cell and remove its veth; one that is gone already is passed over."""

    cell: _Cell


class OpenStream(NamedTuple):
    """Connect inside a cell, and dial the server for the stream; answered once it is connected there.

    Attributes:
        cell: the cell.
        address: where to, a literal.
        port: its TCP port.
        within: seconds that it may take.
        stream: what the member names the stream by when it dials.
    """

    cell: _Cell
    address: _Text
    port: Annotated[int, fields.port]
    within: Annotated[float, fields.seconds]
    stream: _Text


class AskWorker(NamedTuple):
    """Ask the gateway's worker of a cell, as a control plane on that machine would; answered as the worker answers.

    Attributes:
        cell: the cell.
        asked: the message (`ipc.messages.CONTROL_TO_WORKER`), with its `op`.
        revision: of a policy: counts the policies that this server has pushed; a member takes no older one.
        lefts: of a policy: microseconds that are left of each rule's end by the clock that no step moves, None for those without one.
    """

    cell: _Cell
    asked: Annotated[Mapping[str, Any], fields.an_object]
    revision: _Number = 0
    lefts: Annotated[Sequence[Any], fields.a_list] = ()


class FleetSettings(NamedTuple):
    """What holds for all cells of a member.

    Attributes:
        upstream: the upstream proxy, as `config.upstream.Upstream` reads it; None for none.
        listeners: `[[address, port], …]` where the server listens.
    """

    upstream: Annotated[Mapping[str, Any] | None, fields.setting] = None
    listeners: Annotated[Sequence[Any], fields.a_list] = ()


# Member to server


class Join(NamedTuple):
    """Ask for a certificate, by a token; answered with `certificate` and `ca`. The one request of who has no certificate.

    Attributes:
        name: the member's.
        secret: of the token.
        request: a request for a certificate, PEM.
        version: of irons.
    """

    name: Annotated[str, _member]
    secret: _Text
    request: _Text
    version: _Text


class MemberHello(NamedTuple):
    """The first message of a link; answered with the server's `version`, `epoch` and `protocol`.

    Attributes:
        version: of irons.
        protocol: `PROTOCOL`.
        cells: the revision of each policy that the member has.
        epoch: of the server that they came from; empty where there was none.
        held: all cells of which the member has anything.
    """

    version: _Text
    protocol: _Number
    cells: Annotated[Mapping[str, int], fields.counts]
    epoch: _Text = ""
    held: Annotated[Sequence[str], fields.cells] = ()


class CellStream(NamedTuple):
    """The first message of a connection that carries a stream; what follows its answer is the stream itself."""

    stream: _Text


class Beat(NamedTuple):
    """The member is there.

    Attributes:
        clock: its wall clock, microseconds since 1970.
        backlog: bytes of its log that the server does not have.
        workers: workers of its gateway that run.
        cells: how many cells it has.
    """

    clock: _Number
    backlog: _Number = 0
    workers: _Number = 0
    cells: _Number = 0


class Runs(NamedTuple):
    """The runs that the member has; answered with `at`, how many bytes of each the server has, and `over`, those that it has whole."""

    runs: Annotated[Sequence[str], _runs]


class LogPiece(NamedTuple):
    """Bytes of a run's log, or of the counts next to it; answered with `at`, how many bytes of it the server now has durably.

    Attributes:
        run: the run.
        at: where in the file they begin; a piece that begins elsewhere than the server's copy ends is passed over.
        data: they.
        counts: they are of the counts.
    """

    run: Annotated[str, run]
    at: _Number
    data: Annotated[bytes, _piece]
    counts: Annotated[bool, fields.flag] = False


class Over(NamedTuple):
    """Nothing more will come of a run; once answered the member removes it.

    Attributes:
        run: the run.
        size: bytes of its log.
    """

    run: Annotated[str, run]
    size: _Number


ToMember = MakeMemberCell | AdoptMemberCell | DropMemberCell | OpenStream | AskWorker | FleetSettings
ToServer = Join | MemberHello | CellStream | Beat | Runs | LogPiece | Over

SERVER_TO_MEMBER: Final[Mapping[str, type[ToMember]]] = {
    "cell.make": MakeMemberCell,
    "cell.adopt": AdoptMemberCell,
    "cell.drop": DropMemberCell,
    "cell.connect": OpenStream,
    "worker": AskWorker,
    "settings": FleetSettings,
}
OPENING: Final[Mapping[str, type[ToServer]]] = {"join": Join, "hello": MemberHello, "stream": CellStream}
"""What a connection begins with."""
MEMBER_TO_SERVER: Final[Mapping[str, type[ToServer]]] = {
    "beat": Beat,
    "runs": Runs,
    "piece": LogPiece,
    "over": Over,
}

_KINDS: tuple[type[Any], ...] = tuple(
    kind for table in (SERVER_TO_MEMBER, OPENING, MEMBER_TO_SERVER) for kind in table.values()
)
_CHECKS = checks_of(_KINDS)
_OPS: Mapping[type[Any], str] = {
    kind: op for table in (SERVER_TO_MEMBER, OPENING, MEMBER_TO_SERVER) for op, kind in table.items()
}


def read(table: Mapping[str, type[Any]], body: Body) -> Any:
    """Make a message of what arrived.

    Raises:
        UnknownMessageError: it is none of the table.
        BadMessageError: a field is missing or malformed.
    """
    return read_by(table, _CHECKS, body)


def body_of(message: ToMember | ToServer) -> Body:
    """A message as it travels."""
    said = message._asdict()
    if isinstance(message, LogPiece):
        said["data"] = text_of(message.data)
    return {"op": _OPS[type(message)], **said}
