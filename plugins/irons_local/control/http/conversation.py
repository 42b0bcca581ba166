"""One connection to the API: HTTP/1.1 (RFC 9112) in, ASGI out, every phase bounded in time and memory."""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import cast
from urllib.parse import unquote

import h11
from starlette.types import ASGIApp, Scope

from irons_local.control.http.exchange import Headers, HttpExchange
from irons_local.control.http.gate import Gate
from irons_local.control.http.phases import Phase, TimesAllowed
from irons_local.ipc.unixsock import peer_of

_READ_AHEAD = 65_536
"""Bytes of a body that wait for the application; then the peer waits."""

_EVENTS = 32
"""Steps of reading in one turn of the event loop: tiny chunks cost a step each, and others are served between the turns."""

_PART_OF_HEAD = 2048
_PART_OF_BODY = 65_536
_MOST_LINES = 128
"""Lines of a head; each costs far more than its bytes."""

_ABSOLUTE = re.compile(rb"https?://[^/?]*", re.IGNORECASE)


class HttpConnection(asyncio.Protocol):
    """Reads requests, has the application answer them one after another, and ends what takes too long."""

    def __init__(
        self,
        app: ASGIApp,
        gate: Gate,
        times: TimesAllowed,
        tasks: set[asyncio.Task[None]],
        *,
        open_to_all: bool,
    ) -> None:
        """Make one for a connection that is about to be there.

        Args:
            app: the application.
            gate: where the connection is counted.
            times: how long each phase may take.
            tasks: where the application's work is kept while it lasts.
            open_to_all: whoever can connect may use the API, so that a whole head is as good as a key.
        """
        self.opening: asyncio.Task[None] | None = None
        self._app = app
        self._gate = gate
        self._times = times
        self._tasks = tasks
        self._open_to_all = open_to_all
        self._loop = asyncio.get_running_loop()
        self._http = h11.Connection(h11.SERVER)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._phase = Phase.FRESH
        self._exchange: HttpExchange | None = None
        self._known = False
        self._closing = False
        self._half_closed = False
        self._left = asyncio.Event()
        self._end_read = False
        self._unread = bytearray()
        self._next_turn: asyncio.Handle | None = None
        self._full = False
        self._writable = True
        self._bodiless = False
        self._unsent = 0

    # What the gate and the listener ask

    @property
    def waits(self) -> bool:
        """True while the peer is the one who has to send something."""
        return self._phase not in (Phase.ANSWERING, Phase.SENDING)

    def dismiss(self) -> None:
        """End it, since there are too many."""
        if self._transport is not None and self._phase is not Phase.LEAVING:
            self.refuse(503, "too many connections without a valid key, or with this key; try again")
        # A connection that takes its leave slowly would still be one too many.
        self.abort()

    def shut_down(self) -> None:
        """End it after the answer at hand."""
        self._closing = True
        if self._transport is None:
            self.abort()
        elif self._exchange is None:
            self._leave()

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()
        elif self.opening is not None:
            self.opening.cancel()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._enter(Phase.FRESH)

    def data_received(self, data: bytes) -> None:
        """Take what came."""
        if self._phase is Phase.LEAVING:
            return
        if self._phase in (Phase.FRESH, Phase.KEPT):
            self._enter(Phase.HEAD)
        self._unread += data
        self._advance()

    def eof_received(self) -> bool:
        """Note that the peer sends no more; what it asked for before is still answered."""
        if self._phase is Phase.LEAVING:
            return False
        self._half_closed = True
        self._left.set()
        self._advance()
        # asyncio has no half-closed connections with TLS.
        return (self._exchange is not None or self._next_turn is not None) and self._scheme() == "http"

    def pause_writing(self) -> None:
        """Serve no further request until the peer has taken its answers."""
        self._writable = False

    def resume_writing(self) -> None:
        """Go on with the next request."""
        self._writable = True
        if self._phase is Phase.SENDING:
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 (asyncio's)
        """Forget it."""
        self._gate.leave(self)
        self._left.set()
        self._stop_timer()
        if self._next_turn is not None:
            self._next_turn.cancel()
        if self._exchange is not None:
            self._exchange.end()

    # Requests

    def _advance(self) -> None:
        """Read on, for as long as a turn may take."""
        if self._next_turn is not None:
            return
        try:
            for _ in range(_EVENTS):
                if self._full or self._phase is Phase.LEAVING or not self._read_one():
                    return
        except h11.RemoteProtocolError as error:
            self.refuse(error.error_status_hint, f"this is not a valid HTTP request: {error}")
            return
        self._there().pause_reading()
        self._next_turn = self._loop.call_soon(self._go_ahead)

    def _go_ahead(self) -> None:
        self._next_turn = None
        if not self._full:
            self._there().resume_reading()
        self._advance()

    def _read_one(self) -> bool:
        """Take one step; False where something else must happen first.

        Raises:
            h11.RemoteProtocolError: it is not HTTP.
        """
        event = self._http.next_event()
        if event is h11.NEED_DATA:
            return self._feed()
        if event is h11.PAUSED:
            self._there().pause_reading()
            return False
        if isinstance(event, h11.ConnectionClosed):
            if self._exchange is None:
                self._leave()
            return False
        if isinstance(event, h11.Request):
            self._begin(event)
        elif isinstance(event, h11.Data) and self._exchange is not None:
            if self._exchange.take(bytes(event.data)) > _READ_AHEAD:
                self._full = True
                self._there().pause_reading()
        elif isinstance(event, h11.EndOfMessage) and self._exchange is not None:
            self._enter(Phase.ANSWERING)
            self._exchange.take_end()
        return True

    def _feed(self) -> bool:
        """Give the parser more of what has come, or the end; False where there is neither."""
        in_head = self._http.their_state is h11.IDLE
        if in_head and self._http.trailing_data[0].count(b"\n") > _MOST_LINES:
            self.refuse(431, f"the head of the request has more than {_MOST_LINES} lines")
            return False
        if self._unread:
            size = _PART_OF_HEAD if in_head else _PART_OF_BODY
            self._http.receive_data(bytes(self._unread[:size]))
            del self._unread[:size]
            return True
        if self._half_closed and not self._end_read:
            self._end_read = True
            self._http.receive_data(b"")
            return True
        return False

    def _begin(self, request: h11.Request) -> None:
        names = [name for name, _ in request.headers]
        if b"content-length" in names and b"transfer-encoding" in names:
            # RFC 9112, 6.1: where such a request ends could be read in two ways.
            self.refuse(400, "the request has both a Content-Length and a Transfer-Encoding header")
            return
        if names.count(b"authorization") > 1:
            self.refuse(400, "the request has more than one Authorization header")
            return
        if self._open_to_all:
            self._recognise(valid=True)
        self._bodiless = request.method == b"HEAD"
        self._enter(Phase.BODY)
        self._exchange = HttpExchange(self, self._scope(request))
        task = self._loop.create_task(self._exchange.run(self._app))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _scope(self, request: h11.Request) -> Scope:
        own = self._there().get_extra_info("sockname")
        target, _, query = request.target.partition(b"?")
        target = _ABSOLUTE.sub(b"", target, count=1) or b"/"
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": request.http_version.decode("ascii"),
            "server": (own[0], own[1]) if isinstance(own, tuple) else (str(own), None),
            "scheme": self._scheme(),
            "method": request.method.decode("ascii"),
            "root_path": "",
            "path": unquote(target.decode("ascii")),
            "raw_path": target,
            "query_string": query,
            "headers": list(request.headers),
            "extensions": {"irons": {"recognise": self._recognise, "left": self._left, **self._peer()}},
        }

    def _peer(self) -> Mapping[str, int]:
        """User and process at the other end of a unix socket, as the kernel knows them; nothing over TCP."""
        sock = self._there().get_extra_info("socket")
        if sock is None or sock.family != socket.AF_UNIX:
            return {}
        peer = peer_of(sock)
        return {"uid": peer.uid, "pid": peer.pid}

    def _recognise(self, *, valid: bool, key: str | None = None) -> bool:
        self._known = self._gate.recognise(self, valid=valid, key=key)
        return self._known

    def _go_on(self) -> None:
        """Turn to the next request on the connection."""
        if not self._writable:
            self._enter(Phase.SENDING)
            return
        self._http.start_next_cycle()
        waiting = bool(self._http.trailing_data[0] or self._unread)
        self._enter(Phase.HEAD if waiting else Phase.KEPT)
        self._there().resume_reading()
        if waiting or self._half_closed:
            self._advance()

    # Answers

    def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Send an answer in one piece, and go on to the next request."""
        self._exchange = None
        # What is left of a body that the application did not want is not read.
        self._closing = self._closing or self._half_closed or self._phase is Phase.BODY
        self._send(status, headers, body)
        if self._closing or self._http.our_state is not h11.DONE or self._http.their_state is not h11.DONE:
            self._leave()
        else:
            self._go_on()

    def refuse(self, status: int, text: str) -> None:
        """Answer in the server's own name, where there is no answer yet, and end the connection."""
        if self._exchange is not None:
            self._exchange.end()
            self._exchange = None
        if self._http.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self._closing = True
            body = json.dumps({"error": text}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
            if status == HTTPStatus.SERVICE_UNAVAILABLE:
                headers.append((b"retry-after", b"1"))
            self._send(status, headers, body)
        self._leave()

    def welcome_body(self) -> None:
        """Tell the peer to send the body, where it waits for that (RFC 9110, 10.1.1)."""
        if self._http.they_are_waiting_for_100_continue:
            going_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
            self._there().write(self._http.send(going_on) or b"")

    def read_on(self) -> None:
        """Take more of the body."""
        if self._next_turn is not None:
            return
        if self._full:
            self._full = False
            self._next_turn = self._loop.call_soon(self._go_ahead)
        else:
            self._there().resume_reading()

    def _send(self, status: int, headers: Headers, body: bytes) -> None:
        more = [(b"date", formatdate(time.time(), usegmt=True).encode())]
        if self._closing:
            more.append((b"connection", b"close"))
        head = h11.Response(status_code=status, headers=[*headers, *more], reason=_reason(status))
        data = h11.Data(data=b"" if self._bodiless else body)
        # One write: a head that goes out alone is a packet of its own.
        self._there().write(
            b"".join(self._http.send(part) or b"" for part in (head, data, h11.EndOfMessage()))
        )

    # Ends and times

    def _leave(self) -> None:
        """End when what was written has been sent; what still comes is read, lest the kernel resets the connection."""
        if self._phase is Phase.LEAVING:
            return
        transport = self._there()
        self._unread.clear()
        said_nothing = self._phase in (Phase.FRESH, Phase.KEPT)
        self._enter(Phase.LEAVING)
        if said_nothing or self._half_closed or not transport.can_write_eof():
            transport.close()
        else:
            transport.write_eof()
            transport.resume_reading()

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._stop_timer()
        seconds = self._times.of(phase, known=self._known)
        if phase is Phase.SENDING:
            self._unsent = self._there().get_write_buffer_size()
        if seconds is not None:
            self._timer = self._loop.call_later(seconds, self._late)

    def _late(self) -> None:
        self._timer = None
        if self._phase in (Phase.HEAD, Phase.BODY):
            part = "head" if self._phase is Phase.HEAD else "body"
            seconds = self._times.head if self._phase is Phase.HEAD else self._times.body
            self.refuse(408, f"the {part} of the request did not come within {seconds:g} s")
        elif self._phase in (Phase.FRESH, Phase.KEPT):
            self._leave()
        elif self._phase is Phase.SENDING and self._there().get_write_buffer_size() < self._unsent:
            self._enter(Phase.SENDING)
        else:
            self.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _scheme(self) -> str:
        return "https" if self._there().get_extra_info("sslcontext") else "http"

    def _there(self) -> asyncio.Transport:
        if self._transport is None:
            raise RuntimeError("there is no connection yet")
        return self._transport


def _reason(status: int) -> bytes:
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
