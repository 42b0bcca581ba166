"""What the v0 API answers, as data, read leniently: unknown fields are ignored, and missing ones and those of another type are empty."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from operator import itemgetter
from typing import Any, NamedTuple, TypedDict, cast

from irons.errors import ApiError
from irons_policy.event import FIELDS, Event, HeadField, Kind, NumberField, TextField, WordField


class Sandbox(NamedTuple):
    """A sandbox as the server tells it.

    Attributes:
        name: Its name.
        status: The state it is in.
        id: What no other sandbox has, ever.
        created_at: When it was created.
        updated_at: When its state changed last.
        metadata: What else the server tells.
        labels: Its labels.
        ttl: Seconds it was given to live.
        idle_stop: Seconds of idleness after which it is stopped.
        ends_at: When it ends.
        ends_in: Seconds until then, as of the answer.
        ends_by: What ends it, `ttl` or `idle`.
        ends_with: What is done then, `stop` or `destroy`.
        note: The note it was created with.
    """

    name: str
    status: str
    id: str = ""
    created_at: datetime | None = None
    updated_at: datetime | None = None
    metadata: Mapping[str, str] = {}
    labels: Mapping[str, str] = {}
    ttl: int | None = None
    idle_stop: int | None = None
    ends_at: datetime | None = None
    ends_in: int | None = None
    ends_by: str = ""
    ends_with: str = ""
    note: str = ""


class CreateOptions(TypedDict, total=False):
    """What a sandbox may be created with, next to its name and key; only irons' own server knows of it. None is left out.

    Attributes:
        mode: Its own egress mode, `warn` or `deny`; None follows the mode of all sandboxes.
        rules: Its own rules, each with `pattern` and `list`, and perhaps `private` and `note`.
        image: The image it starts from.
        engine: What makes the machine.
        cpus: Limit in processors.
        memory: Limit in bytes.
        disk: Limit in bytes.
        labels: Labels by key.
        note: A text of at most 200 characters.
        environment: Variables of its sessions.
        entrypoint: Whether it runs the image's entrypoint at each start.
        ttl: Seconds until it is stopped.
        rm: Whether it is destroyed at the end of `ttl`.
        idle_stop: Seconds of idleness after which it is stopped.
        held: Whether it is destroyed when no call holds it for a minute (`Api.hold`).
    """

    mode: str | None
    rules: Sequence[Mapping[str, Any]] | None
    image: str | None
    engine: str | None
    cpus: float | None
    memory: int | None
    disk: int | None
    labels: Mapping[str, str] | None
    note: str | None
    environment: Mapping[str, str] | None
    entrypoint: bool | None
    ttl: int | None
    rm: bool | None
    idle_stop: int | None
    held: bool | None


class NewTerms(TypedDict, total=False):
    """What changes of how long a sandbox may live; what is left out stays.

    Attributes:
        ttl: Seconds from now until it is stopped; None: no limit.
        rm: Whether it is destroyed at the end of `ttl`.
        idle_stop: Seconds of idleness after which it is stopped; None: no limit.
    """

    ttl: int | None
    rm: bool
    idle_stop: int | None


class HostFilters(TypedDict, total=False):
    """Which rows of what a sandbox tried are wanted; None is left out.

    Attributes:
        verdict: One verdict, or several with commas between them.
        host: A host, or a pattern of hosts.
        limit: The most rows, the latest.
    """

    verdict: str | None
    host: str | None
    limit: int | None


class AuditFilters(HostFilters, total=False):
    """Which events are wanted; only irons' own server knows of it. None is left out.

    Attributes:
        since: From this time on (RFC 3339).
        until: Up to this time (RFC 3339).
        outcome: One outcome, or several with commas between them.
        wait: Seconds that the server may hold its answer until there is an event.
        page_size: Events of one page, the oldest first.
        changes: The cursor of changes; 0 begins one.
    """

    since: str | None
    until: str | None
    outcome: str | None
    wait: float | None
    page_size: int | None
    changes: int | None


class ServerInfo(NamedTuple):
    """What a server says that it is.

    Attributes:
        name: `irons` for irons' own server.
        version: Its version.
        extensions: What it can beyond the wire contract.
    """

    name: str
    version: str = ""
    extensions: tuple[str, ...] = ()


class SshAddress(NamedTuple):
    """Where a sandbox's SSH answers.

    Attributes:
        host: A host name or an address.
        port: Its TCP port.
        username: The user to log in as.
        host_keys: Lines of known_hosts without the host; irons' own server sends them.
        cell: Set by the local backend.
        command: A remote command to run in place of a shell; usually empty.
        oom_kills: Processes that were killed for the memory limit since the sandbox started; None where that is not counted.
        memory: The memory limit in bytes; None where there is none, or the server reports none.
    """

    host: str
    port: int
    username: str
    host_keys: tuple[str, ...] = ()
    cell: str = ""
    command: str = ""
    oom_kills: int | None = None
    memory: int | None = None


class EgressRules(NamedTuple):
    """Allow and deny lists; `rules` has the same with what irons' own server knows besides (private, note, covers).

    `revision` names just this state of rules and mode, for `Api.replace_rules`; empty where the server tells none.
    """

    allowed: tuple[str, ...]
    denied: tuple[str, ...]
    mode: str = ""
    rules: tuple[Mapping[str, Any], ...] = ()
    revision: str = ""


class RuleChanged(NamedTuple):
    """What a change did to one rule.

    Attributes:
        pattern: The rule's pattern, in its one spelling.
        list: The list that it is, or was, in: `allow` or `deny`.
        covers: What it covers, in one sentence; empty where the server does not say.
        changed: False where it was there already, just as it is.
    """

    pattern: str
    list: str = ""
    covers: str = ""
    changed: bool = True


class RulesChanged(NamedTuple):
    """What one change of rules did, or, as a dry run, would do.

    Attributes:
        rules: The rules that it put or removed.
        cut: Live connections that it cut.
        mode: The mode that applies to them; empty where the server does not say.
    """

    rules: tuple[RuleChanged, ...]
    cut: int = 0
    mode: str = ""


class EventUpdate(Event):
    """An event that a follower has seen before, as it is now: it ended, or was repeated."""

    __slots__ = ()
    update = True

    def _asdict(self) -> dict[str, Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return {**super()._asdict(), "update": self.update}


class HostTried(NamedTuple):
    """What a sandbox tried of one host, port and verdict; with `folded`, of a whole domain or the rest."""

    host: str
    verdict: str
    port: int | None = None
    first: datetime | None = None
    last: datetime | None = None
    count: int = 1  # type: ignore[assignment]
    reached: int | None = None
    """Of these, attempts that may have reached a server."""
    bytes_in: int | None = None
    bytes_out: int | None = None
    folded: str = ""


class Totals(NamedTuple):
    """How many connections a sandbox has tried in its life, and how many of them were refused."""

    connections: int
    refused: int


class Rotated(NamedTuple):
    """How many events of a sandbox made room for others, all of them from before a time."""

    sandbox: str
    events: int
    before: datetime | None

    @property
    def line(self) -> str:
        """The line for people."""
        from irons.text import clean, local_time

        when = f" before {local_time(self.before)}" if self.before else ""
        events = f"{self.events:,} event{'s' if self.events != 1 else ''}"
        of = f" of {clean(self.sandbox)}" if self.sandbox else ""
        were = "were" if self.events != 1 else "was"
        return f"{events}{of}{when} {were} rotated out; irons audit hosts {clean(self.sandbox) or 'NAME'} counts them"


class Unrecorded(NamedTuple):
    """How many refusals of a sandbox are not in its log, because the log cannot be written now."""

    sandbox: str
    count: int  # type: ignore[assignment]

    @property
    def line(self) -> str:
        """The line for people."""
        from irons.text import clean

        what = f"{self.count:,} attempt{'s' if self.count != 1 else ''} of {clean(self.sandbox)}"
        were = "were" if self.count != 1 else "was"
        return f"{what} {were} refused and not recorded: the disk that holds the audit log is full"


class AuditPage(NamedTuple):
    """A part of the audit log and the token that continues it (0: keep the one you have).

    `left_out` is how many older events the server has and did not send. `changed` is what changed of events up to the
    token that was sent, where the question had a cursor of changes; `change_token` is the next one.
    """

    events: tuple[Event, ...]
    token: int = 0
    left_out: int = 0
    rotated: tuple[Rotated, ...] = ()
    unrecorded: tuple[Unrecorded, ...] = ()
    changed: tuple[Event, ...] = ()
    change_token: int = 0


_LARGEST = 1 << 63
"""Whole numbers from here on are no counts, ports or identities of anything."""


_MOST_ROWS = 100_000
"""Rows that one answer may have: each becomes an object many times the size of its text."""


class Pages:
    """The pages that one reading of a log has turned to: a server must not have it read on for ever."""

    MOST = 10_000
    """Pages of one log."""

    def __init__(self) -> None:
        self._tokens: set[int] = set()

    def to(self, token: int) -> None:
        """Turn to the page after a token. Raises `ApiError` where that was turned to before, or a log has no so many pages."""
        if token in self._tokens:
            raise ApiError("the server's audit log repeats a page; it has no end")
        if len(self._tokens) >= self.MOST:
            raise ApiError(f"the server's audit log has more than {self.MOST:,} pages")
        self._tokens.add(token)


def rows_of(answer: Mapping[str, Any], key: str) -> Sequence[Mapping[str, Any]]:
    """Return the objects in a list of an answer; what is none is passed over. Raises `ApiError` where there are too many."""
    rows = answer.get(key)
    if not isinstance(rows, list):
        return []
    if len(rows) > _MOST_ROWS:
        raise ApiError(f"the server sent {len(rows):,} {key} at once; {_MOST_ROWS:,} is the most")
    return [row for row in rows if isinstance(row, dict)]


def texts_of(value: object) -> tuple[str, ...]:
    """Return the texts in a list; nothing where it is not a list."""
    return tuple(item for item in value if isinstance(item, str)) if isinstance(value, list) else ()


def text_of(value: object) -> str:
    """Return a text, or what a number or a truth value looks like; nothing of anything else, however deep it is nested."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int | float) else ""


def whole_of(value: object) -> int | None:
    """Return a whole number of 64 bits at most; None for anything else."""
    return value if type(value) is int and -_LARGEST <= value < _LARGEST else None


def time_of(value: object) -> datetime | None:
    """Read a time (RFC 3339); None for what is not one."""
    if not isinstance(value, str):
        return None
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    if found.tzinfo is None:
        from datetime import UTC

        found = found.replace(tzinfo=UTC)
    # At either end of the calendar no other zone can tell it.
    return found if 1 < found.year < 9999 else None


def sandbox_of(row: Mapping[str, Any]) -> Sandbox:
    """Read a Status object of the wire contract; unknown fields are ignored, missing ones are empty."""
    get = row.get
    return Sandbox(
        name=text_of(get("name")),
        status=text_of(get("status")),
        id=text_of(get("id")),
        created_at=time_of(get("created_at")),
        updated_at=time_of(get("updated_at")),
        metadata=_texts_by_key(get("metadata")),
        labels=_texts_by_key(get("labels")),
        ttl=whole_of(get("ttl")),
        idle_stop=whole_of(get("idle_stop")),
        ends_at=time_of(get("ends_at")),
        ends_in=whole_of(get("ends_in")),
        ends_by=text_of(get("ends_by")),
        ends_with=text_of(get("ends_with")),
        note=text_of(get("note")),
    )


def _texts_by_key(value: object) -> dict[str, str]:
    return {key: text_of(item) for key, item in value.items()} if isinstance(value, dict) else {}


def rules_changed_of(answer: Mapping[str, Any], patterns: Sequence[str]) -> RulesChanged:
    """Read what a change of rules did; `patterns` are those that were asked for, where a plain server does not name them."""
    rows = rows_of(answer, "rules") or ([answer] if len(patterns) == 1 else [])
    if len(rows) != len(patterns):
        rows = [{}] * len(patterns)
    rules = (
        RuleChanged(
            text_of(row.get("pattern")) or pattern,
            text_of(row.get("list")),
            text_of(row.get("covers")),
            row.get("changed") is not False,
        )
        for row, pattern in zip(rows, patterns, strict=True)
    )
    return RulesChanged(tuple(rules), whole_of(answer.get("cut")) or 0, text_of(answer.get("mode")))


def _is_text(kind: Kind) -> bool:
    return kind.holds == "text" if isinstance(kind, HeadField) else isinstance(kind, TextField | WordField)


def _is_whole(kind: Kind) -> bool:
    return (
        kind.holds == "number"
        if isinstance(kind, HeadField)
        else isinstance(kind, NumberField) and kind.whole
    )


_KEYS = {name: kind.key if isinstance(kind, HeadField) else name for name, kind in FIELDS.items()}
_TEXTS = [name for name, kind in FIELDS.items() if _is_text(kind)]
_NUMBERS = [name for name, kind in FIELDS.items() if _is_whole(kind)]
_OTHERS = ["time", "allowed", "duration_ms"]
"""Fields that are read one by one: of their kinds there is one each."""
_TEXT_KEYS, _NUMBER_KEYS = [_KEYS[name] for name in _TEXTS], [_KEYS[name] for name in _NUMBERS]
_SANDBOX, _VERDICT, _COUNT = _TEXTS.index("sandbox"), _TEXTS.index("verdict"), _NUMBERS.index("count")
_in_order = itemgetter(*map([*_TEXTS, *_NUMBERS, *_OTHERS].index, FIELDS))
"""From values as they are read, by kind, to values as an event has them."""
_event = cast("Callable[[tuple[Any, ...]], Event]", partial(tuple.__new__, Event))
"""Make an event of its values; `Event._make` counts them once more."""


def event_of(row: Mapping[str, Any], sandbox: str) -> Event:
    """Read an audit event; `sandbox` is whose log was asked for, where the event does not say it."""
    get = row.get
    allowed, duration = get("allowed") is True, get("duration_ms")
    # Long logs are events by the hundred thousand: nearly all of these are what they should be, and cost no call.
    values: list[Any] = [
        value if type(value) is str else text_of(value) if value else "" for value in map(get, _TEXT_KEYS)
    ]
    numbers = [
        value if value is None or (type(value) is int and 0 <= value < _LARGEST) else whole_of(value)
        for value in map(get, _NUMBER_KEYS)
    ]
    if not values[_SANDBOX]:
        values[_SANDBOX] = sandbox
    if not values[_VERDICT]:
        # A server that tells no verdict tells at least whether the connection passed.
        values[_VERDICT] = "allowed" if allowed else "blocked"
    if numbers[_COUNT] is None:
        numbers[_COUNT] = 1
    values += numbers
    values += (
        time_of(get("timestamp")),
        allowed,
        duration if type(duration) is float else whole_of(duration),
    )
    return _event(_in_order(values))


def host_of(row: Mapping[str, Any]) -> HostTried:
    """Read a row of what a sandbox tried by host."""
    get = row.get
    count = whole_of(get("count"))
    return HostTried(
        host=text_of(get("host")),
        verdict=text_of(get("verdict")),
        port=whole_of(get("port")),
        first=time_of(get("first")),
        last=time_of(get("last")),
        count=1 if count is None else count,
        reached=whole_of(get("reached")),
        bytes_in=whole_of(get("bytes_in")),
        bytes_out=whole_of(get("bytes_out")),
        folded=text_of(get("folded")),
    )


def rotated_of(row: Mapping[str, Any], sandbox: str) -> Rotated:
    """Read how many events were rotated out; `sandbox` is whose log was asked for, where the row does not say it."""
    get = row.get
    return Rotated(
        text_of(get("sandbox_name")) or sandbox, max(0, whole_of(get("events")) or 0), time_of(get("before"))
    )


def unrecorded_of(row: Mapping[str, Any], sandbox: str) -> Unrecorded:
    """Read how many refusals could not be recorded; `sandbox` is as in `rotated_of`."""
    return Unrecorded(text_of(row.get("sandbox_name")) or sandbox, max(0, whole_of(row.get("count")) or 0))
