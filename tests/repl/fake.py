"""A small v0 API for the prompt's tests: sandboxes, rules, mode and audit events in memory, and a gate to hold answers behind."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, unquote, urlsplit


class Fake:
    """The server; its attributes are its state, changed by tests as they like."""

    def __init__(self, port: int = 0) -> None:
        self.sandboxes: dict[str, str] = {"agent-1": "ready", "agent-2": "stopped"}
        self.mode = "warn"
        self.rules: dict[str, str] = {"pypi.org": "allow", "evil.example": "deny"}
        self.events: list[dict[str, Any]] = []
        self.requests: list[str] = []
        self.connections = 0
        self.go = threading.Event()
        self.go.set()
        self.held = threading.Event()
        self._server = _server(self, port)
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def event(self, host: str, verdict: str, sandbox: str = "agent-1") -> None:
        """Add an audit event."""
        self.events.append(
            {
                "type": "egress",
                "id": len(self.events) + 1,
                "timestamp": datetime.now(UTC).isoformat(),
                "sandbox_name": sandbox,
                "host": host,
                "port": 443,
                "protocol": "tls",
                "allowed": verdict != "blocked",
                "verdict": verdict,
                "mode": self.mode,
                "count": 1,
            }
        )

    def answer(self, method: str, path: str, query: dict[str, str], body: dict[str, Any]) -> tuple[int, Any]:
        """Return status and answer."""
        match [method, *(unquote(part) for part in path.strip("/").split("/"))]:
            case ["GET", "sandboxes"]:
                return 200, {
                    "sandboxes": [{"name": n, "status": s, "id": n} for n, s in self.sandboxes.items()]
                }
            case ["POST", "sandboxes"]:
                self.sandboxes[body["name"]] = "ready"
                return 201, {"id": body["name"], "name": body["name"], "status": "ready"}
            case ["GET", "sandboxes", name] if name in self.sandboxes:
                return 200, {"name": name, "id": name, "status": self.sandboxes[name]}
            case ["DELETE", "sandboxes", name] if name in self.sandboxes:
                del self.sandboxes[name]
                return 204, None
            case ["POST", "sandboxes", name, "start" | "stop" as verb] if name in self.sandboxes:
                self.sandboxes[name] = "ready" if verb == "start" else "stopped"
                return 202, {}
            case ["GET", "egress"]:
                return 200, {
                    "allowed_domains": [d for d, v in self.rules.items() if v == "allow"],
                    "denied_domains": [d for d, v in self.rules.items() if v == "deny"],
                    "mode": self.mode,
                }
            case ["POST", "egress", "allow" | "deny" as verb]:
                self.rules[body["domain"]] = verb
                return 200, {
                    "pattern": body["domain"],
                    "list": verb,
                    "covers": body["domain"],
                    "changed": True,
                    "cut": 0,
                }
            case ["GET", "egress", "mode"]:
                return 200, {"mode": self.mode}
            case ["PUT", "egress", "mode"]:
                self.mode = body["mode"]
                return 200, {"mode": self.mode}
            case ["GET", "audit", "egress"]:
                return self._audit(self.events, query)
            case ["GET", "sandboxes", name, "audit", "egress"]:
                return self._audit([e for e in self.events if e["sandbox_name"] == name], query)
        return 404, {"error": "there is no such sandbox"}

    def _audit(self, events: list[dict[str, Any]], query: dict[str, str]) -> tuple[int, Any]:
        token = int(query.get("pageToken", 0))
        found = [e for e in events if e["id"] > token]
        if "verdict" in query:
            found = [e for e in found if e["verdict"] == query["verdict"]]
        if "limit" in query:
            found = found[-int(query["limit"]) :]
        return 200, {"events": found, "page_token": found[-1]["id"] if found else 0}

    def stop(self) -> None:
        """End the server and cut its connections."""
        self._server.shutdown()
        self._server.server_close()
        self._server.cut()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.go.set()
        self.stop()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    fake: Fake

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._open: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        self.fake.connections += 1
        self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves in mid-request is no error here."""

    def cut(self) -> None:
        """Cut what is still open."""
        for request in list(self._open):
            self.shutdown_request(request)


def _server(fake: Fake, port: int) -> _Server:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def handle_one_request(self) -> None:
            super().handle_one_request()

        def _any(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length) or b"{}") if length else {}
            parts = urlsplit(self.path)
            fake.requests.append(f"{self.command} {self.path}")
            if not fake.go.is_set():
                fake.held.set()
                fake.go.wait(30)
            query = {k: v[-1] for k, v in parse_qs(parts.query).items()}
            status, answer = fake.answer(self.command, parts.path, query, body or {})
            data = b"" if answer is None else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class calls it so
            """Stay silent."""

    server = _Server(("127.0.0.1", port), Handler)
    server.fake = fake
    return server
