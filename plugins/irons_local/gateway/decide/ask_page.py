"""`POST http://irons.internal/ask`: the agent inside asks a person for a host, with a reason, and may wait for what becomes of it.

It grants nothing: it puts a question, or gives one a reason. What the rules, the floor or a person has refused is answered at once,
without a question. A page in a browser inside cannot send it: it needs a JSON content type, the host `irons.internal` and no `Origin`.
"""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from irons.text import clean, in_quotes
from irons_local.gateway.ask.asking import SAID_NO, UNASKED, Place, Reply, State, opens
from irons_local.gateway.decide import pages
from irons_local.gateway.record.journal import JournalError
from irons_local.gateway.record.refusal import Refusal
from irons_local.times import now
from irons_policy.causes import Cause
from irons_policy.decide import decide, decide_address
from irons_policy.event import REQUEST_PROTOCOL
from irons_policy.hostnames import INTERNAL, HostError, canonical_host
from irons_policy.policy import Decision, Policy

if TYPE_CHECKING:
    from irons_local.gateway.http1.heads import Head
    from irons_local.gateway.shared.cell import Cell
    from irons_local.gateway.shared.context import Context
    from irons_local.gateway.streams.stream import Wire

TARGETS = frozenset({b"/ask", b"http://irons.internal/ask"})
MOST_BODY = 4096
MOST_REASON = 200
"""Characters of a reason; what is longer is cut."""
MOST_RECORDED = 1000
"""Characters of what the audit log has of a request: as many as an event's reason may have."""
LONGEST_WAIT = 300.0
BY_AGENT = "asked by the agent, no connection was made"
CLOSED = "it leads to an address that no answer opens"
NOT_ASKED = "the mode is {}, so no person is asked"
UNANSWERED = "it has no answer yet; an answer applies to the next try"
MANY_OPEN = "so many questions of this sandbox are open"
PASSED = "a person let a connection pass, once, and it has passed"
LATER = "the answer applies to the next try"

_KEYS = frozenset({"host", "port", "reason", "wait"})


class InvalidRequestError(Exception):
    """The request is not one that is taken.

    Attributes:
        status: of HTTP.
    """

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class AgentRequest(NamedTuple):
    """What the agent asks for.

    Attributes:
        place: the host and the port.
        reason: its words, cleaned and cut.
        wait: seconds that it waits for an answer.
    """

    place: Place
    reason: str
    wait: float


class RequestState(NamedTuple):
    """What a request is answered with.

    Attributes:
        state: what became of it.
        reason: one line, without anything that the sandbox may not know.
        cause: what decided, where it is refused.
    """

    state: State
    reason: str
    cause: Cause | None = None


def check_head(head: Head) -> None:
    """Refuse what a program that means to ask does not send, before its body is read.

    Raises:
        InvalidRequestError: with what is wrong.
    """
    if head.method != b"POST":
        raise InvalidRequestError("405 Method Not Allowed", "POST a JSON object with host, port and reason")
    fields = {name.lower(): value for name, value in head.fields}
    if head.host is None or any(host.text != INTERNAL for host in head.hosts) or b"origin" in fields:
        raise InvalidRequestError("403 Forbidden", f"this is for programs that ask {INTERNAL} themselves")
    kind = fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        raise InvalidRequestError(
            "415 Unsupported Media Type", "the request needs Content-Type: application/json"
        )
    if head.length is None:
        raise InvalidRequestError("411 Length Required", "the request needs a Content-Length")
    if head.length > MOST_BODY:
        raise InvalidRequestError("413 Content Too Large", f"the body has at most {MOST_BODY} bytes")


def read_request(body: bytes) -> AgentRequest:
    """Read the body of a request.

    Raises:
        InvalidRequestError: with what is wrong.
    """
    try:
        given = json.loads(body)
    except (ValueError, RecursionError):
        raise _bad("the body is not JSON") from None
    if not isinstance(given, dict):
        raise _bad("the body is not a JSON object")
    asked = cast("dict[str, Any]", given)
    if unknown := asked.keys() - _KEYS:
        raise _bad(f"unknown field {clean(min(unknown), limit=40)!r}; there are host, port, reason and wait")
    host, port, reason, wait = (asked.get(key) for key in ("host", "port", "reason", "wait"))
    if not isinstance(host, str):
        raise _bad("host must be a host name or an address")
    try:
        name = canonical_host(host)
    except HostError as error:
        raise _bad(f"host is invalid: {clean(str(error), limit=200)}") from None
    if type(port) is not int or not 0 < port < 65_536:
        raise _bad("port must be a number from 1 to 65535")
    if not isinstance(reason, str) or not reason.strip():
        raise _bad("reason must say, in one line, what it is for")
    if wait is None:
        wait = 0
    if type(wait) not in (int, float) or not 0 <= wait <= LONGEST_WAIT:
        raise _bad(f"wait must be a number of seconds from 0 to {LONGEST_WAIT:.0f}")
    return AgentRequest(Place(name, port), clean(reason.strip(), limit=MOST_REASON), float(wait))


async def answer(client: Wire, cell: Cell, context: Context, asked: AgentRequest) -> bytes:
    """Put the question, wait for its answer as long as was asked for, and give the response.

    Raises:
        InvalidRequestError: it is not taken: too many, or nothing can be recorded.
    """
    later = cell.allowance.take()
    if later is not None:
        raise _Crowded("so many requests were made in the last hour", later)
    standing = _standing(cell, context, asked.place)
    crowded = standing.state == "open" and not cell.asking.may_request(asked.place)
    # From before the record: what a person sees of the question is what was in the log without it.
    since = now()
    _record(cell, context, asked, RequestState("refused", MANY_OPEN, Cause.CAP) if crowded else standing)
    if crowded:
        raise _Crowded(MANY_OPEN, pages.RETRY_AFTER)
    if standing.state == "open":
        cell.asking.request(asked.place, asked.reason, since)
        if asked.wait and cell.asking.watched and cell.allowance.may_listen:
            standing = await _wait(client, cell, context, asked)
    said = {
        "host": asked.place.host.text,
        "port": asked.place.port,
        "state": standing.state,
        "reason": standing.reason,
    }
    body = json.dumps(said, indent=2) + "\n"
    return pages.response("202 Accepted" if standing.state == "open" else "200 OK", body, "application/json")


def refusal(error: InvalidRequestError) -> bytes:
    """The response to a request that is not taken."""
    body = json.dumps({"error": str(error)}) + "\n"
    response = pages.response(error.status, body, "application/json")
    if isinstance(error, _Crowded):
        more = b"\r\nRetry-After: %d\r\n" % math.ceil(error.later)
        response = response.replace(b"\r\n", more, 1)
    return response


class _Crowded(InvalidRequestError):
    """There are too many; another try may be taken `later`, in seconds."""

    def __init__(self, reason: str, later: float) -> None:
        super().__init__("429 Too Many Requests", reason)
        self.later = later


class _Listener:
    """A request that waits."""

    def __init__(self) -> None:
        self.told: asyncio.Future[Reply | None] = asyncio.get_running_loop().create_future()

    def heard(self, reply: Reply | None) -> None:
        """The question is closed."""
        if not self.told.done():
            self.told.set_result(reply)


def _standing(cell: Cell, context: Context, place: Place) -> RequestState:
    """What there is to say of a place now."""
    cell.renew()
    policy, asking = cell.policy, cell.asking
    if policy is None:
        return RequestState("refused", "no policy is known for this sandbox yet", Cause.NO_POLICY)
    decision = decide(policy, place.host, place.port)
    if decision.allowed:
        closed = _closed(policy, context, place)
        if closed is not None:
            return RequestState("refused", CLOSED, closed.cause)
        return RequestState("allowed", decision.reason)
    if decision.cause is not Cause.UNCOVERED:
        return RequestState("refused", decision.reason, decision.cause)
    if policy.mode != "ask":
        return RequestState("refused", f"{decision.reason}; {NOT_ASKED.format(policy.mode)}", decision.cause)
    never = policy.unasked(place.host, place.port)
    if never is not None:
        return RequestState("refused", f"{decision.reason}; {UNASKED.format(never.text)}", decision.cause)
    if asking.refuses(place):
        return RequestState("refused", SAID_NO, Cause.ASKED)
    if not opens(policy, place, context.host_network()):
        return RequestState("refused", CLOSED, Cause.FLOOR)
    if asking.passes_once(place):
        return RequestState("allowed", LATER)
    # Not whether a person is there: that is none of the sandbox's business.
    return RequestState("open", UNANSWERED)


def _closed(policy: Policy, context: Context, place: Place) -> Decision | None:
    """Why a place that the rules allow is closed by its address, where that is known; None where it is not closed."""
    literal = place.host.address
    known = policy.addresses_of(place.host) if literal is None else (literal,)
    found = [
        decide_address(policy, place.host, place.port, each, context.host_network()) for each in known or ()
    ]
    return found[0] if found and not any(each.allowed for each in found) else None


def _record(cell: Cell, context: Context, asked: AgentRequest, standing: RequestState) -> None:
    """Write what the agent asked for, before anyone sees it.

    Raises:
        InvalidRequestError: it could not be written.
    """
    if standing.state == "allowed":
        return
    mode = None if cell.policy is None else cell.policy.mode
    cause = Cause.ASKED if standing.cause is None else standing.cause
    why = BY_AGENT if standing.state == "open" else f"{BY_AGENT}; {standing.reason}"
    place = asked.place
    record = Refusal(
        place.host.text,
        place.port,
        REQUEST_PROTOCOL,
        mode,
        None,
        # The words are clean already. What is longer than the field is left out.
        f"{why}; its words: {in_quotes(asked.reason)}"[:MOST_RECORDED],
        cause,
    )
    try:
        context.journal.event(cell.name, **record.record())
    except JournalError as error:
        context.complain(str(error))
        raise InvalidRequestError(
            "503 Service Unavailable", "it cannot be recorded, so no one is asked"
        ) from None


async def _wait(client: Wire, cell: Cell, context: Context, asked: AgentRequest) -> RequestState:
    """Wait for an answer, until the time is over or the program goes; gives what there is to say then."""
    listener = _Listener()
    cell.allowance.listening += 1
    cell.asking.listen(asked.place, listener)
    gone = asyncio.ensure_future(client.recv(1))
    until: tuple[asyncio.Future[Any], ...] = (listener.told, gone)
    try:
        await asyncio.wait(until, timeout=asked.wait, return_when=asyncio.FIRST_COMPLETED)
    finally:
        cell.asking.unlisten(asked.place, listener)
        cell.allowance.listening -= 1
        gone.cancel()
        with suppress(OSError, asyncio.CancelledError):
            await gone
    if listener.told.done() and listener.told.result() == "once":
        return RequestState("allowed", LATER if cell.asking.passes_once(asked.place) else PASSED)
    return _standing(cell, context, asked.place)


def _bad(reason: str) -> InvalidRequestError:
    return InvalidRequestError("400 Bad Request", reason)
