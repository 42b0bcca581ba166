"""A server of the v0 API on a real socket, in memory: plain as the hosted service was, or with what irons' own server adds."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from irons.testing.answers import FakeAnswer
from irons.testing.fake_state import Call, FakeState
from irons.testing.faults import Fault
from irons.testing.routes import answer
from irons.text import rfc3339

EXTENSIONS = (
    "access",
    "entrypoint",
    "rules",
    "check",
    "audit-filters",
    "wait",
    "policy",
    "images",
    "live-check",
    "audit-hosts",
    "audit-outcomes",
    "labels",
    "audit-totals",
    "audit-changes",
    "holds",
    "terms",
    "status-wait",
    "rule-batches",
    "change-log",
    "audit-export",
    "audit-columns",
    "timed-rules",
    "snapshots",
    "questions",
    "policy-never",
    "fork-held",
    "create-on",
)
"""What irons' own server says that it can."""


@dataclass
class FakeApi(FakeState):
    """The state of the fake, as attributes, and the server in front of it."""

    def __post_init__(self) -> None:
        """Make room for faults; nothing listens yet."""
        self._faults: list[tuple[str, Fault, int]] = []
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def url(self) -> str:
        """The API URL."""
        assert self._server is not None, "the fake listens only inside `with`"  # noqa: S101
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def fail(self, fault: Fault, on: str = "", times: int = 1) -> None:
        """Answer the next `times` requests whose "METHOD /path" begins with `on` with a fault."""
        with self.lock:
            self._faults.append((on, fault, times))

    def record(self, host: str, sandbox: str = "one", *, allowed: bool = True, **more: Any) -> dict[str, Any]:
        """Put an event into the audit log, a second after the last one; followers hear of it at once."""
        with self.lock:
            number = len(self.events) + 1
            time = datetime(2026, 2, 19, 23, 42, 25, tzinfo=UTC) + timedelta(seconds=number)
            event = {
                "type": "egress",
                "timestamp": rfc3339(time),
                "sandbox_name": sandbox,
                "host": host,
                "allowed": allowed,
                "mode": "deny",
                **more,
            }
            if self.extensions:
                event = {"id": number, "port": 443, "count": 1, **event}
            self.events.append(event)
            self.lock.notify_all()
            return event

    def change(self, event: dict[str, Any], **more: Any) -> None:
        """Change an event of the log, as when a connection ends; followers hear of it at once."""
        with self.lock:
            event.update(more)
            self.changes.append(event)
            self.lock.notify_all()

    def log_change(self, what: str, sandbox: str = "", **more: Any) -> dict[str, Any]:
        """Put a change into the change log, a second after the last one; followers hear of it at once."""
        with self.lock:
            number = len(self.change_log) + 1
            time = datetime(2026, 2, 19, 23, 42, 25, tzinfo=UTC) + timedelta(seconds=number)
            change = {"type": "change", "id": number, "timestamp": rfc3339(time), "what": what}
            change |= {"by": "uid", "uid": 1000, "claimed_face": "cli", "request": "0123456789abcdef", **more}
            if sandbox:
                change |= {"sandbox_name": sandbox, "sandbox_id": "sb_0000000000000001"}
            self.change_log.append(change)
            self.lock.notify_all()
            return change

    def lines(self) -> list[str]:
        """Return "METHOD /path" of each request that arrived."""
        with self.lock:
            return [call.line for call in self.calls]

    def __enter__(self) -> Self:
        """Listen on the loopback address."""
        self.closing.clear()
        self._server = _Server(self)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, name="fake-api"
        )
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop, and drop every connection."""
        self.closing.set()
        with self.lock:
            self.lock.notify_all()
        if self._server is not None and self._thread is not None:
            # Its loop looks up at once, not at its next turn: every test that has a server ends here.
            with suppress(OSError):
                self._server.socket.shutdown(socket.SHUT_RDWR)
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server.drop_connections()

    def take(self, call: Call) -> Fault | None:
        """Note a request, and return the fault that it meets."""
        with self.lock:
            self.calls.append(call)
            for at, (on, fault, times) in enumerate(self._faults):
                if call.line.startswith(on):
                    if times > 1:
                        self._faults[at] = (on, fault, times - 1)
                    else:
                        del self._faults[at]
                    return fault
        return None


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", api.port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Take a connection."""
        with self.api.lock:
            self.api.connections += 1
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Let a connection go."""
        with self.api.lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def drop_connections(self) -> None:
        """Cut what is still open, as the end of a process does."""
        with self.api.lock:
            left = list(self._open)
        for connection in left:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients that go away are a part of the game."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 1 << 16

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Keep quiet; `FakeApi.calls` tells."""

    def _serve(self) -> None:
        api = cast("_Server", self.server).api
        parts = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(length) if length else b""
        call = Call(
            self.command,
            unquote(parts.path),
            dict(parse_qsl(parts.query)),
            json.loads(raw) if raw else None,
            dict(self.headers.items()),
        )
        fault = api.take(call)
        if fault is not None:
            if fault.delay:
                api.closing.wait(fault.delay)
            while fault.until is not None and not (fault.until.is_set() or api.closing.is_set()):
                fault.until.wait(0.02)
            if fault.drop:
                self.close_connection = True
                return
            if fault.status:
                self._send(FakeAnswer(fault.status, fault.body, fault.headers), fault.keep)
                return
        self._send(answer(api, call, parts.path))

    def _send(self, told: FakeAnswer, keep: int | None = None) -> None:
        self.send_response(told.status)
        for name, value in told.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(told.body)))
        self.end_headers()
        self.wfile.write(told.body if keep is None else told.body[:keep])
        self.wfile.flush()
        if keep is not None:
            self.close_connection = True
