"""What the fake v0 API keeps: requests, sandboxes, rules and events."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from irons.record import NamedTuple


class Call(NamedTuple):
    """One request that arrived."""

    method: str
    path: str
    query: Mapping[str, str]
    body: Any
    headers: Mapping[str, str]

    @property
    def line(self) -> str:
        """Method and path."""
        return f"{self.method} {self.path}"


@dataclass
class FakeSandbox:
    """A sandbox of the fake. It goes from `status` to `becomes` once it was asked about `polls` times."""

    name: str
    id: str
    status: str
    public_key: str = ""
    becomes: str = ""
    polls: int = 0
    metadata: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    held: bool = False
    terms: dict[str, Any] = field(default_factory=dict)
    mode: str | None = None
    rules: list[dict[str, Any]] = field(default_factory=list)
    never: list[str] = field(default_factory=list)
    created_at: str = "2026-02-19T16:00:00Z"
    updated_at: str = "2026-02-19T16:00:01Z"
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass
class FakeState:
    """What the fake keeps, all of it open to a test.

    Attributes:
        key: The key that requests must carry; None takes all.
        extensions: What it can beyond the wire contract, such as `EXTENSIONS`; nothing: it is a plain v0 server.
        has_list: Whether it has the route that lists sandboxes.
        polls: How often a new sandbox is asked about before it changes its state.
        page: How many audit events one answer holds.
        newest: How many it holds at irons' own server where the request has no `limit`, `wait` and `page_size`.
        tokens: Whether it tells page tokens.
        undecided: Whether it says that no one has set the mode yet or created a sandbox.
        rotated: What it says of events that were rotated out.
        unrecorded: What it says of refusals that could not be recorded.
        hosts: What it says that sandboxes tried, by host.
        changes: The events that changed, in order.
        unsettled: The ids of events that may still change, as an export is answered.
        rotated_ids: The ids of events that retention took, as an export is answered.
        rotated_changes: The ids of changes that made room for others.
        change_log: The changes of rules, modes, keys and sandboxes, numbered from 1.
        ssh: What it answers about SSH.
        images: The images that it lists, as objects with a `name`.
        questions: What people are asked, as `GET /questions` has it.
        answers: Answers that are not rules and count for a while yet, likewise.
        snapshots: The snapshots that it lists, as objects with a `name` and a `sandbox`.
        cut: How many live connections it says that a change cuts.
        progress: What the polls of a new sandbox say in their metadata, one each.
        calls: The requests that arrived, in order.
        port: The port to listen on, so that a server can come back where it was; 0 is any free one.
        connections: How many connections were made to it.
    """

    key: str | None = None
    extensions: tuple[str, ...] = ()
    has_list: bool = True
    polls: int = 1
    page: int = 1000
    newest: int = 10_000
    tokens: bool = True
    sandboxes: dict[str, FakeSandbox] = field(default_factory=dict)
    rules: list[dict[str, Any]] = field(default_factory=list)
    never: list[str] = field(default_factory=list)
    mode: str = "warn"
    undecided: bool = False
    rotated: list[dict[str, Any]] = field(default_factory=list)
    unrecorded: list[dict[str, Any]] = field(default_factory=list)
    hosts: list[dict[str, Any]] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    changes: list[dict[str, Any]] = field(default_factory=list)
    unsettled: set[int] = field(default_factory=set)
    rotated_ids: set[int] = field(default_factory=set)
    rotated_changes: set[int] = field(default_factory=set)
    change_log: list[dict[str, Any]] = field(default_factory=list)
    ssh: dict[str, Any] = field(
        default_factory=lambda: {"host": "127.0.0.1", "port": 2222, "username": "agent"}
    )
    images: list[dict[str, Any]] = field(default_factory=list)
    snapshots: list[dict[str, Any]] = field(default_factory=list)
    questions: list[dict[str, Any]] = field(default_factory=list)
    answers: list[dict[str, Any]] = field(default_factory=list)
    cut: int = 0
    progress: list[str] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    port: int = 0
    connections: int = 0
    lock: threading.Condition = field(default_factory=threading.Condition, repr=False)
    closing: threading.Event = field(default_factory=threading.Event, repr=False)

    def add(self, name: str, status: str = "ready", **more: Any) -> FakeSandbox:
        """Put a sandbox there."""
        with self.lock:
            made = FakeSandbox(name, f"sb_{len(self.sandboxes) + 1:016x}", status, **more)
            self.sandboxes[name] = made
            self.undecided = False
            return made
