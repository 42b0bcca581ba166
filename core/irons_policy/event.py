"""One outbound connection attempt as the audit log has it.

The fields of an event are listed in `Event` and nowhere else. The gateway's records, what the intake takes of them, the columns
that it writes and reads, the API's schema and the client's reading are derived from that list. A new field is added at the end,
with a default; it needs a migration that adds its column, and the code that gives it a value.
"""

# Annotations are read as data below, so they are not postponed.
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, NamedTuple, ParamSpec, cast

from irons_policy.causes import Cause, Outcome
from irons_policy.modes import MODES, VERDICTS

if TYPE_CHECKING:
    from datetime import datetime

REQUEST_PROTOCOL: Final = "ask"
"""The protocol of what the agent inside asked a person for: no connection was made."""
LARGEST: Final = 2**63 - 1
"""The largest number that a record or a column holds."""


# Plain classes: they are made whenever a command starts, and named tuples take several times as long to make.
class HeadField:
    """A field that is kept next to the record: every event has it.

    Attributes:
        key: its name on the wire.
        holds: what it is: a text, a number or a time (RFC 3339).
    """

    def __init__(self, key: str, holds: Literal["text", "number", "time"] = "text") -> None:
        self.key = key
        self.holds = holds


class TextField:
    """A text; an empty one states nothing.

    Attributes:
        most: characters of it at most: more than a gateway writes.
    """

    def __init__(self, most: int) -> None:
        self.most = most


class WordField:
    """One of a few words.

    Attributes:
        words: all that there are.
    """

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words


class NumberField:
    """A number from 0 to `LARGEST`.

    Attributes:
        whole: a number with a fraction, as another server may send it, is not taken.
    """

    def __init__(self, *, whole: bool = True) -> None:
        self.whole = whole


class BoolField:
    """True or false."""


Kind = HeadField | TextField | WordField | NumberField | BoolField


class Event(NamedTuple):
    """One outbound connection attempt. A text is empty, and a number is None, where the server does not send it.

    Attributes:
        time: when it began.
        sandbox: the name of the sandbox that tried.
        host: a canonical name or address; `*` where one event stands for many attempts.
        allowed: it was let through.
        verdict: the verdict of the rules: allowed, blocked or warn.
        mode: the mode that was active: warn, deny or ask.
        protocol: http, tls, tcp, udp, icmp, dns or the number of another; check and ask are for what was only asked about.
        port: the port; None where the protocol has none.
        rule: the pattern that decided.
        reason: one line for people.
        count: attempts that it stands for.
        id: grows with each event.
        sandbox_id: the id of the sandbox that tried.
        bytes_in: bytes that came in.
        bytes_out: bytes that went out.
        duration_ms: milliseconds from accept to close.
        ended: how it ended, one line for people.
        address: the address that was dialled, or refused.
        cause: what decided, for programs; empty for events from before it was recorded.
        outcome: what became of it, such as reached or unresolved; empty while it is open and for events from before.
        connection: the id of the connection in the gateway's log lines; of a repeated refusal, that of the first. Empty for
            events from before it was recorded.
    """

    time: Annotated["datetime | None", HeadField("timestamp", "time")] = None
    sandbox: Annotated[str, HeadField("sandbox_name")] = ""
    host: Annotated[str, TextField(255)] = ""
    allowed: Annotated[bool, BoolField()] = False
    verdict: Annotated[str, WordField(VERDICTS)] = ""
    mode: Annotated[str, WordField(MODES)] = ""
    protocol: Annotated[str, TextField(32)] = ""
    port: Annotated[int | None, NumberField()] = None
    rule: Annotated[str, TextField(300)] = ""
    reason: Annotated[str, TextField(1000)] = ""
    count: Annotated[int, NumberField()] = 1  # type: ignore[assignment]
    id: Annotated[int | None, HeadField("id", "number")] = None
    sandbox_id: Annotated[str, HeadField("sandbox_id")] = ""
    bytes_in: Annotated[int | None, NumberField()] = None
    bytes_out: Annotated[int | None, NumberField()] = None
    duration_ms: Annotated[float | None, NumberField(whole=False)] = None
    ended: Annotated[str, TextField(1000)] = ""
    address: Annotated[str, TextField(64)] = ""
    cause: Annotated[str, WordField(tuple(Cause))] = ""
    outcome: Annotated[str, WordField(tuple(Outcome))] = ""
    connection: Annotated[str, TextField(64)] = ""


FIELDS: Final[Mapping[str, Kind]] = {
    name: annotation.__metadata__[0] for name, annotation in Event.__annotations__.items()
}
"""The fields of an event in order, and what each of them holds."""
RECORDED: Final[Mapping[str, Kind]] = {
    name: kind for name, kind in FIELDS.items() if not isinstance(kind, HeadField)
}
"""Those that a gateway's record may have; the table has a column of the same name for each."""

_P = ParamSpec("_P")


def _keywords(_of: Callable[_P, Event]) -> Callable[_P, dict[str, Any]]:
    return cast("Callable[_P, dict[str, Any]]", dict)


record = _keywords(Event)
"""Make a gateway's record of an event, from those fields by keyword that it states.

At run time it is `dict`: a record is made on the way of each connection. Its type is that of `Event`, so that a type checker
refuses a field that events do not have, and a value of another type.
"""
