"""The messages of a gateway worker's links: which there are, and what each carries.

Whoever sends one makes it of its class, and whoever receives one has it read by the table of the link: what is malformed is refused
there. Keys are only ever added, with a default, and unknown ones are passed over, since the other side may be of another version.
"""

# Annotations are read as data below, so they are not postponed.
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple, TypedDict, TypeVar, cast

from irons_local.ipc.framing import Body

_CELL = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
_M = TypeVar("_M", bound=tuple[Any, ...])


class BadMessageError(Exception):
    """A message lacks something, or carries something invalid; the text says what."""


class UnknownMessageError(BadMessageError):
    """The link has no such message."""


class Untold:
    """Stands for what a message does not say, where None says something."""


UNTOLD: Final = Untold()


class AboutSandbox(TypedDict, total=False):
    """What a worker knows of a sandbox next to its rules.

    Attributes:
        id: its id, which is the name of its cell.
        name: its name.
        connections: how many it may have at once.
    """

    id: str
    name: str
    connections: int


class Figures(TypedDict):
    """How much of everything a worker has: the answer to `Stats`.

    Attributes:
        pid: its process.
        cells: cells that it serves.
        connections: open ones.
        undecided: those of them that no server was reached for yet.
        names: synthetic names.
        resolving: threads that resolve.
        files: descriptors that it may have.
        fds: descriptors that it has.
        memory: bytes.
        lost: records that could not be written.
        run: the run of the audit log that it writes.
    """

    pid: int
    cells: int
    connections: int
    undecided: int
    names: int
    resolving: int
    files: int
    fds: int
    memory: int
    lost: int
    run: str


# What fields hold: each takes what arrived and returns it, or raises `BadMessageError`.


def _cell(value: object) -> str:
    if not isinstance(value, str) or not _CELL.fullmatch(value):
        raise BadMessageError(f"{value!r} is not a cell")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise BadMessageError(f"{value!r} is not a text")
    return value


def _number(value: object) -> int:
    if type(value) is not int or value < 0:
        raise BadMessageError(f"{value!r} is not a number")
    return value


def _port(value: object) -> int:
    if type(value) is not int or not 0 < value < 65_536:
        raise BadMessageError(f"{value!r} is not a port")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise BadMessageError(f"{value!r} is neither true nor false")
    return value


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadMessageError(f"{value!r} is not an object")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise BadMessageError(f"{value!r} is not a list")
    return value


def _cells(value: object) -> list[str]:
    return [_cell(each) for each in _list(value)]


def _numbers(value: object) -> list[int]:
    return [_number(each) for each in _list(value)]


def _counts(value: object) -> dict[str, int]:
    """What a worker says of cells: what is not a number above 0 is passed over."""
    return {cell: count for cell, count in _object(value).items() if type(count) is int and count > 0}


def about_sandbox(value: object) -> AboutSandbox:
    """Read what is known of a sandbox; what is of another type than it should be is passed over."""
    found: AboutSandbox = {}
    given = value if isinstance(value, dict) else {}
    if isinstance(given.get("id"), str):
        found["id"] = given["id"]
    if isinstance(given.get("name"), str):
        found["name"] = given["name"]
    if type(given.get("connections")) is int:
        found["connections"] = given["connections"]
    return found


def _setting(value: object) -> Mapping[str, Any] | None:
    return None if value is None else _object(value)


_Cell = Annotated[str, _cell]
_UNKNOWN: Final[AboutSandbox] = {}
_Policy = Annotated[Mapping[str, Any], _object]
"""As `irons_policy.policy.Policy` reads it."""


# Keeper to worker


class Attach(NamedTuple):
    """Serve a cell; its sockets come with it, in the order of `cell.layout.SOCKETS`."""

    cell: _Cell
    ports: Annotated[Mapping[str, Any], _object]


class Detach(NamedTuple):
    """Serve a cell no more."""

    cell: _Cell


class Missed(NamedTuple):
    """The keeper refused connections of a cell while no worker was there."""

    cell: _Cell
    count: Annotated[int, _number]  # type: ignore[assignment]


class Surrender(NamedTuple):
    """Answer with the cells that are served (`cells`), or with the ports and sockets of one (`ports`)."""

    cell: _Cell | None = None


class NewLink(NamedTuple):
    """The worker's end of a link to the control plane comes with it."""


class Stats(NamedTuple):
    """Answer with `Figures`."""


# Keeper to control plane


class NewWorker(NamedTuple):
    """An end of a new link to a worker comes with it.

    Attributes:
        worker: its number.
        cells: the cells that it serves.
    """

    worker: Annotated[int, _number] = 0
    cells: Annotated[Sequence[str], _cells] = ()


class Moved(NamedTuple):
    """A cell has another worker.

    Attributes:
        cell: the cell.
        served: every worker that serves or served it, the one of now last.
    """

    cell: _Cell
    served: Annotated[Sequence[int], _numbers]


# Control plane to worker


class PutPolicy(NamedTuple):
    """Put a policy in place; answered with `cut`, how many connections that ended."""

    cell: _Cell
    policy: _Policy
    sandbox: Annotated[AboutSandbox, about_sandbox] = _UNKNOWN


class Impact(NamedTuple):
    """Answer with `cut`, how many connections a policy would end."""

    cell: _Cell
    policy: _Policy


class CountLive(NamedTuple):
    """Answer with `live`, how many connections a cell has."""

    cell: _Cell


class Forget(NamedTuple):
    """Forget a cell for good."""

    cell: _Cell


class Listeners(NamedTuple):
    """Where irons itself listens, and what all sandboxes share.

    Attributes:
        listeners: `[[address, port], …]`.
        keep: whether this worker keeps it for those that are started later.
        upstream: the upstream proxy, as `config.upstream.Upstream` reads it; None for none.
        pool: the block of made-up addresses of sandboxes made from now on; None for the usual one.
    """

    listeners: Annotated[Sequence[Any], _list]
    keep: Annotated[bool, _flag] = True
    upstream: Annotated[Mapping[str, Any] | Untold | None, _setting] = UNTOLD
    pool: Annotated[str | None, _text] = None


class ProbeHost(NamedTuple):
    """Reach a host as a sandbox would; answered with how far that went.

    Attributes:
        policy: by whose rules.
        host: canonical.
        port: 1 to 65535.
        cell: the sandbox it is asked for; None for none.
    """

    policy: _Policy
    host: Annotated[str, _text]
    port: Annotated[int, _port]
    cell: _Cell | None = None


# Worker to control plane


class Grown(NamedTuple):
    """A run of the audit log has grown."""

    run: Annotated[str, _text]


class LostRecords(NamedTuple):
    """How many refusals of each cell could not be recorded so far."""

    cells: Annotated[Mapping[str, int], _counts]


# Worker to keeper


class Alive(NamedTuple):
    """The worker's loop goes round; now and then with the bytes of memory that it uses."""

    memory: Annotated[int | None, _number] = None


FromKeeper = Attach | Detach | Missed | Surrender | NewLink | Stats
FromControl = PutPolicy | Impact | CountLive | Forget | Listeners | ProbeHost | Stats
OfWorkers = NewWorker | Moved
FromWorker = Grown | LostRecords
AnyMessage = FromKeeper | FromControl | OfWorkers | FromWorker | Alive

KEEPER_TO_WORKER: Final[Mapping[str, type[FromKeeper]]] = {
    "attach": Attach,
    "detach": Detach,
    "missed": Missed,
    "surrender": Surrender,
    "peer": NewLink,
    "stats": Stats,
}
KEEPER_TO_CONTROL: Final[Mapping[str, type[OfWorkers]]] = {"peer": NewWorker, "moved": Moved}
CONTROL_TO_WORKER: Final[Mapping[str, type[FromControl]]] = {
    "policy": PutPolicy,
    "impact": Impact,
    "live": CountLive,
    "forget": Forget,
    "listeners": Listeners,
    "probe": ProbeHost,
    "stats": Stats,
}
WORKER_TO_CONTROL: Final[Mapping[str, type[FromWorker]]] = {"audit": Grown, "unrecorded": LostRecords}
WORKER_TO_KEEPER: Final[Mapping[str, type[Alive]]] = {"alive": Alive}

_TABLES: tuple[Mapping[str, type[AnyMessage]], ...] = (
    KEEPER_TO_WORKER,
    KEEPER_TO_CONTROL,
    CONTROL_TO_WORKER,
    WORKER_TO_CONTROL,
    WORKER_TO_KEEPER,
)
_OPS: Mapping[type[Any], str] = {kind: op for table in _TABLES for op, kind in table.items()}


def _check_of(annotation: Any) -> Callable[[object], object]:
    """The check of a field; that of an optional one is in its first alternative."""
    found = annotation if hasattr(annotation, "__metadata__") else annotation.__args__[0]
    return cast("Callable[[object], object]", found.__metadata__[0])


_CHECKS: Mapping[type[Any], Mapping[str, Callable[[object], object]]] = {
    kind: {name: _check_of(kind.__annotations__[name]) for name in kind._fields} for kind in _OPS
}


def read(table: Mapping[str, type[_M]], body: Body) -> _M:
    """Make a message of what arrived.

    Args:
        table: the messages of the link, by `op`.
        body: what arrived.

    Raises:
        UnknownMessageError: it is none of the table.
        BadMessageError: a field is missing or malformed.
    """
    op = body.get("op")
    kind: Any = table.get(op) if isinstance(op, str) else None
    if kind is None:
        raise UnknownMessageError(f"there is no operation {op!r}")
    checks = _CHECKS[kind]
    missing = [name for name in checks if name not in body and name not in kind._field_defaults]
    if missing:
        raise BadMessageError(f"{op} lacks {', '.join(missing)}")
    given = {name: check(body[name]) for name, check in checks.items() if name in body}
    return cast("_M", kind(**given))


def call_of(message: AnyMessage) -> tuple[str, Body]:
    """A message's `op`, and its fields but for what it does not say."""
    fields = message._asdict()
    absent = message._field_defaults
    return _OPS[type(message)], {
        name: value
        for name, value in fields.items()
        if value is not UNTOLD and not (value is None and name in absent and absent[name] is None)
    }


def body_of(message: AnyMessage) -> Body:
    """A message as the body of a notice."""
    op, fields = call_of(message)
    return {"op": op, **fields}
