"""A stand-in for Incus at a unix socket: instances are entries in a dict, and it can be away, silent, or fail at a request."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from irons_local.engines.incus.project import _CONFIG

_FAILED: tuple[int, dict[str, Any]] = (
    500,
    {"type": "error", "error": "the database is locked", "error_code": 500},
)
ACCEPTED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"


class PretendedIncus:
    """See the module.

    Args:
        path: of the socket, which is there while it is `open`.

    Attributes:
        instances: the instances, by name, as it describes them.
        asked: the requests, as `METHOD PATH`.
        silent: requests are taken and never answered.
        breaking: instances are made, and their creation fails all the same.
        failing: a beginning of `METHOD PATH`, whose requests fail, as Incus fails where its database does.
        refusing: why it trusts no certificate.
        project: the configuration of the project of irons.
        members: the state of each member of its cluster; empty where it is none. The first answers.
        addresses: where it listens on the network.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.instances: dict[str, dict[str, Any]] = {}
        self.asked: list[str] = []
        self.silent = False
        self.breaking = False
        self.failing: set[str] = set()
        self.members: dict[str, str] = {}
        self.addresses: list[str] = []
        self.refusing = ""
        self.project = dict(_CONFIG)
        self._connections: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Answer for as long as this is open; afterwards nothing listens, and connections are closed."""
        server = await asyncio.start_unix_server(self._serve, self.path)
        try:
            yield
        finally:
            server.close()
            for writer in self._connections:
                writer.close()
            self.path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, target, _ = head.split(" ", 2)
                path = target.partition("?")[0].removeprefix("/1.0").removeprefix("/")
                size = next(
                    (line[15:] for line in head.lower().split("\r\n") if line.startswith("content-length:")),
                    "0",
                )
                body = await reader.readexactly(int(size))
                self.asked.append(f"{method} {path}")
                if self.silent:
                    await reader.read()
                    return
                if path == "events":
                    writer.write(ACCEPTED)
                    await reader.read()
                    return
                status, answer = self._answer(method, path, body)
                data = json.dumps(answer).encode()
                writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data)
                await writer.drain()

    def _answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if any(f"{method} {path}".startswith(each) for each in self.failing):
            return _FAILED
        kind, _, rest = path.partition("/")
        name, _, part = rest.partition("/")
        found: Any = {}
        if path == "":
            needed = ["container_nic_ipvlan", "projects_restrictions", "projects_restricted_cluster_target"]
            name = next(iter(self.members), "alone")
            about = {
                "server_name": name,
                "server_clustered": bool(self.members),
                "addresses": self.addresses,
            }
            found = {"api_extensions": needed, "environment": about}
        elif kind == "certificates" and self.refusing:
            return 403, {"type": "error", "error": self.refusing, "error_code": 403}
        elif kind == "cluster":
            found = [
                {"server_name": name, "status": state, "url": f"https://192.0.2.{number}:8443"}
                for number, (name, state) in enumerate(self.members.items(), 1)
            ]
        elif kind == "projects":
            if method == "PUT":
                self.project = json.loads(body)["config"]
            found = {"config": dict(self.project)}
        elif kind == "storage-pools":
            found = [{"name": "default", "driver": "btrfs"}]
        elif kind == "instances" and method == "POST" and not name:
            made = json.loads(body)
            self.instances[made["name"]] = described(made)
            if self.breaking:
                return _FAILED
        elif path == "instances":
            found = list(self.instances.values())
        elif kind == "instances" and (name not in self.instances or (part == "files" and method == "GET")):
            return 404, {"type": "error", "error": "not found", "error_code": 404}
        elif part == "state" and method == "PUT":
            ends = json.loads(body)["action"] == "stop"
            self.instances[name]["status"] = "Stopped" if ends else "Running"
        elif kind == "instances" and not part and method == "DELETE":
            del self.instances[name]
        elif kind == "instances" and not part:
            found = self.instances[name]
        return 200, {"type": "sync", "status_code": 200, "metadata": found}


def described(made: dict[str, Any], status: str = "Stopped") -> dict[str, Any]:
    """An instance as Incus describes one that was made of this."""
    return {
        "config": made["config"],
        "expanded_config": made["config"],
        "expanded_devices": made["devices"],
        "status": status,
    }
