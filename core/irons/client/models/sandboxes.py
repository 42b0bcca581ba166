"""Sandboxes: what the API answers about them, and what its requests may say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypedDict

from irons.client.models.fields import text_of, texts_by_key, texts_of, time_of, whole_of
from irons.record import NamedTuple

if TYPE_CHECKING:
    from irons_policy.rules import RuleRequest


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

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Sandbox:
        """Read a Status object of the wire contract."""
        get = row.get
        return cls(
            name=text_of(get("name")),
            status=text_of(get("status")),
            id=text_of(get("id")),
            created_at=time_of(get("created_at")),
            updated_at=time_of(get("updated_at")),
            metadata=texts_by_key(get("metadata")),
            labels=texts_by_key(get("labels")),
            ttl=whole_of(get("ttl")),
            idle_stop=whole_of(get("idle_stop")),
            ends_at=time_of(get("ends_at")),
            ends_in=whole_of(get("ends_in")),
            ends_by=text_of(get("ends_by")),
            ends_with=text_of(get("ends_with")),
            note=text_of(get("note")),
        )


class CreateOptions(TypedDict, total=False):
    """What a sandbox may be created with, next to its name and key; only irons' own server knows of it. None is left out.

    Attributes:
        mode: Its own egress mode, `warn`, `deny` or `ask`; None follows the mode of all sandboxes.
        rules: Its own rules, each with `pattern` and `list`, and perhaps `private` and `note`.
        never: Patterns that no person is asked about in it. Needs the extension `policy-never`.
        image: The image it starts from.
        engine: The sandbox engine.
        member: The member of an Incus cluster that it is made on. Needs the extension `create-on`.
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
        snapshot: The snapshot whose files it starts with; what is left out here is as the snapshot's sandbox had it, but for
            labels, note, environment and terms.
    """

    mode: str | None
    rules: Sequence[RuleRequest] | None
    never: Sequence[str]
    image: str | None
    engine: str | None
    member: str | None
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
    snapshot: str | None


class CopyPolicy(TypedDict, total=False):
    """The policy of a copy, where it is not that of what is copied.

    Attributes:
        mode: Its own egress mode, `warn`, `deny` or `ask`.
        rules: Its own rules; what the original denies stays denied.
    """

    mode: str | None
    rules: Sequence[RuleRequest] | None


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

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> SshAddress:
        """Read an answer of `GET /sandboxes/{name}/ssh`."""
        get = answer.get
        return cls(
            host=text_of(get("host")),
            port=whole_of(get("port")) or 0,
            username=text_of(get("username")),
            host_keys=texts_of(get("host_keys")),
            cell=text_of(get("cell")),
            command=text_of(get("command")),
            oom_kills=whole_of(get("oom_kills")),
            memory=whole_of(get("memory")),
        )


class AuthorizedKey(NamedTuple):
    """A public key that opens a sandbox.

    Attributes:
        id: What it is removed by.
        type: Its algorithm, such as `ssh-ed25519`.
        fingerprint: As OpenSSH prints it.
        comment: What its line ends with.
    """

    id: str
    type: str
    fingerprint: str
    comment: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> AuthorizedKey:
        """Read a row of `GET /sandboxes/{name}/access`."""
        return cls(*(text_of(row.get(field)) for field in cls._fields))
