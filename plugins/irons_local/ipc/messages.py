"""The messages between the backend's processes: which there are, and what each carries.

Whoever sends one makes it of its class, and whoever receives one has it read by the table of the link: what is malformed is refused
there. Keys are only ever added, with a default, and unknown ones are passed over, since the other side may be of another version.
"""

# Annotations are read as data below, so they are not postponed.
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, NamedTuple, TypedDict, TypeVar, cast

from irons_local.ipc import fields, keeper_requests
from irons_local.ipc.fields import UNTOLD, BadMessageError, UnknownMessageError, Untold
from irons_local.ipc.framing import Body

_M = TypeVar("_M", bound=tuple[Any, ...])


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


_Cell = Annotated[str, fields.cell]
_UNKNOWN: Final[AboutSandbox] = {}
_Policy = Annotated[Mapping[str, Any], fields.an_object]
"""As `irons_policy.policy.Policy` reads it."""


# Keeper to worker


class Attach(NamedTuple):
    """Serve a cell; its sockets come with it, in the order of `cell.layout.SOCKETS`."""

    cell: _Cell
    ports: Annotated[Mapping[str, Any], fields.an_object]


class Detach(NamedTuple):
    """Serve a cell no more."""

    cell: _Cell


class Missed(NamedTuple):
    """The keeper refused connections of a cell while no worker was there."""

    cell: _Cell
    count: Annotated[int, fields.number]  # type: ignore[assignment]


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

    worker: Annotated[int, fields.number] = 0
    cells: Annotated[Sequence[str], fields.cells] = ()


class Moved(NamedTuple):
    """A cell has another worker.

    Attributes:
        cell: the cell.
        served: every worker that serves or served it, the one of now last.
    """

    cell: _Cell
    served: Annotated[Sequence[int], fields.numbers]


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

    listeners: Annotated[Sequence[Any], fields.a_list]
    keep: Annotated[bool, fields.flag] = True
    upstream: Annotated[Mapping[str, Any] | Untold | None, fields.setting] = UNTOLD
    pool: Annotated[str | None, fields.text] = None


class ProbeHost(NamedTuple):
    """Reach a host as a sandbox would; answered with how far that went.

    Attributes:
        policy: by whose rules.
        host: canonical.
        port: 1 to 65535.
        cell: the sandbox it is asked for; None for none.
    """

    policy: _Policy
    host: Annotated[str, fields.text]
    port: Annotated[int, fields.port]
    cell: _Cell | None = None


class HoldLog(NamedTuple):
    """The audit log holds as much as may wait for a server: what cannot be recorded is refused, as on a full disk.

    Attributes:
        full: False ends that.
    """

    full: Annotated[bool, fields.flag]


class Watched(TypedDict):
    """How a cell is watched; see `WatchQuestions`."""

    lease: float
    hold: float
    keys: int


def _watches(value: object) -> dict[str, Watched]:
    """How each of some cells is watched."""
    given = {fields.cell(name): fields.an_object(each) for name, each in fields.an_object(value).items()}
    return {
        name: {
            "lease": fields.seconds(each.get("lease")),
            "hold": fields.seconds(each.get("hold")),
            "keys": fields.number(each.get("keys")),
        }
        for name, each in given.items()
    }


class WatchQuestions(NamedTuple):
    """A person watches, so that connections of mode `ask` may wait for an answer; sent again before the lease is over.

    Attributes:
        lease: seconds for which that counts; almost none where the person watches only `cells`.
        hold: seconds for which a connection waits.
        keys: another number than before where a key was pressed since.
        cells: `lease`, `hold` and `keys` of those cells for which others hold than for all. A gateway from before passes it over, so that
            nothing of them waits.
    """

    lease: Annotated[float, fields.seconds]
    hold: Annotated[float, fields.seconds]
    keys: Annotated[int, fields.number] = 0
    cells: Annotated[Mapping[str, Watched], _watches] | None = None


def _reply(value: object) -> str:
    """An answer that is not a rule."""
    if value not in ("once", "no"):
        raise BadMessageError(f"{value!r} is not an answer")
    return str(value)


class ReplyQuestion(NamedTuple):
    """A person's answer that is not a rule, `once` or `no`.

    It is answered with `waited`, how many connections waited for it, or with `gone`.

    Attributes:
        since: when it was asked; 0 where that is not known.
    """

    cell: _Cell
    host: Annotated[str, fields.text]
    port: Annotated[int, fields.port]
    reply: Annotated[str, _reply]
    since: Annotated[int, fields.number] = 0


class Followed(NamedTuple):
    """Readers wait for new events, so each record has its notice soon; sent again before the lease is over.

    Attributes:
        lease: seconds for which that counts.
    """

    lease: Annotated[float, fields.seconds]


# Worker to control plane


class Grown(NamedTuple):
    """A run of the audit log has grown."""

    run: Annotated[str, fields.text]


class LostRecords(NamedTuple):
    """How many refusals of each cell could not be recorded so far."""

    cells: Annotated[Mapping[str, int], fields.counts]


class OpenQuestions(NamedTuple):
    """All open questions of a cell, oldest first.

    Attributes:
        cell: whose they are.
        questions: each with `host`, `port`, `protocol`, `since`, `last`, `count` and `waiting`; `requests` and `reason` say how often the
            agent inside asked for it without a connection, and its last words for it; `ends`, the two ends of the connection that waited
            last, as `cell.layout.Ends`.
        others: places beyond those.
        ended: those that ended without an answer lately, each with `host`, `port`, `since`, `count` and `why`.
        answers: those that are not rules and count for a while, each with `host`, `port`, `reply` and `left`, seconds.
    """

    cell: _Cell
    questions: Annotated[Sequence[Any], fields.a_list]
    others: Annotated[int, fields.number] = 0
    ended: Annotated[Sequence[Any], fields.a_list] = ()
    answers: Annotated[Sequence[Any], fields.a_list] = ()


# Worker to keeper


class Alive(NamedTuple):
    """The worker's loop goes round; now and then with the bytes of memory that it uses."""

    memory: Annotated[int | None, fields.number] = None


FromKeeper = Attach | Detach | Missed | Surrender | NewLink | Stats
FromControl = (
    PutPolicy | Impact | CountLive | Forget | Listeners | ProbeHost | Stats
    | WatchQuestions | ReplyQuestion | Followed | HoldLog
)  # fmt: skip
OfWorkers = NewWorker | Moved
FromWorker = Grown | LostRecords | OpenQuestions
ToKeeper = (
    keeper_requests.MakeCell
    | keeper_requests.AdoptCell
    | keeper_requests.DropCell
    | keeper_requests.CellNamespaces
    | keeper_requests.ConnectCell
    | keeper_requests.FindProgram
    | keeper_requests.PlaceCell
    | keeper_requests.CellServed
    | keeper_requests.Greet
    | keeper_requests.TellStatus
    | keeper_requests.Ready
    | keeper_requests.Restart
    | keeper_requests.Retire
    | keeper_requests.Down
)
AnyMessage = FromKeeper | FromControl | OfWorkers | FromWorker | Alive | ToKeeper

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
    "questions.watch": WatchQuestions,
    "questions.reply": ReplyQuestion,
    "audit.followed": Followed,
    "log.hold": HoldLog,
}
WORKER_TO_CONTROL: Final[Mapping[str, type[FromWorker]]] = {
    "audit": Grown,
    "unrecorded": LostRecords,
    "questions": OpenQuestions,
}
WORKER_TO_KEEPER: Final[Mapping[str, type[Alive]]] = {"alive": Alive}
TO_KEEPER: Final[Mapping[str, type[ToKeeper]]] = {
    "cell.make": keeper_requests.MakeCell,
    "cell.adopt": keeper_requests.AdoptCell,
    "cell.drop": keeper_requests.DropCell,
    "cell.namespaces": keeper_requests.CellNamespaces,
    "cell.connect": keeper_requests.ConnectCell,
    "cell.program": keeper_requests.FindProgram,
    "cell.place": keeper_requests.PlaceCell,
    "cell.served": keeper_requests.CellServed,
    "hello": keeper_requests.Greet,
    "status": keeper_requests.TellStatus,
    "ready": keeper_requests.Ready,
    "restart": keeper_requests.Restart,
    "retire": keeper_requests.Retire,
    "down": keeper_requests.Down,
}

_TABLES: tuple[Mapping[str, type[AnyMessage]], ...] = (
    KEEPER_TO_WORKER,
    KEEPER_TO_CONTROL,
    CONTROL_TO_WORKER,
    WORKER_TO_CONTROL,
    WORKER_TO_KEEPER,
    TO_KEEPER,
)
_OPS: Mapping[type[Any], str] = {kind: op for table in _TABLES for op, kind in table.items()}


def _check_of(annotation: Any) -> Callable[[object], object]:
    """The check of a field; that of an optional one is in its first alternative."""
    found = annotation if hasattr(annotation, "__metadata__") else annotation.__args__[0]
    return cast("Callable[[object], object]", found.__metadata__[0])


def checks_of(kinds: Iterable[type[Any]]) -> Mapping[type[Any], Mapping[str, Callable[[object], object]]]:
    """The check of each field of some messages."""
    return {kind: {name: _check_of(kind.__annotations__[name]) for name in kind._fields} for kind in kinds}


_CHECKS = checks_of(_OPS)


def read(table: Mapping[str, type[_M]], body: Body) -> _M:
    """Make a message of what arrived.

    Args:
        table: the messages of the link, by `op`.
        body: what arrived.

    Raises:
        UnknownMessageError: it is none of the table.
        BadMessageError: a field is missing or malformed.
    """
    return cast("_M", read_by(table, _CHECKS, body))


def read_by(
    table: Mapping[str, type[Any]],
    checked: Mapping[type[Any], Mapping[str, Callable[[object], object]]],
    body: Body,
) -> Any:
    """Make a message of what arrived on a link whose messages are not those of this module.

    Args:
        table: the messages of the link, by `op`.
        checked: what `checks_of` gave for them.
        body: what arrived.

    Raises:
        UnknownMessageError: it is none of the table.
        BadMessageError: a field is missing or malformed.
    """
    op = body.get("op")
    kind: Any = table.get(op) if isinstance(op, str) else None
    if kind is None:
        raise UnknownMessageError(f"there is no operation {op!r}")
    checks = checked[kind]
    missing = [name for name in checks if name not in body and name not in kind._field_defaults]
    if missing:
        raise BadMessageError(f"{op} lacks {', '.join(missing)}")
    absent = kind._field_defaults
    given = {
        name: check(body[name])
        for name, check in checks.items()
        if name in body and not (body[name] is None and name in absent and absent[name] is None)
    }
    return kind(**given)


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
