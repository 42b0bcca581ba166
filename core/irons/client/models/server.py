"""What a server says of itself: what it is, its images, and its API keys."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from irons.client.models.fields import text_of, texts_of, time_of, whole_of
from irons.record import NamedTuple


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

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> ServerInfo:
        """Read an answer of `GET /version`."""
        return cls(
            text_of(answer.get("name")), text_of(answer.get("version")), texts_of(answer.get("extensions"))
        )


class ImageInfo(NamedTuple):
    """An image that sandboxes can start from.

    Attributes:
        name: Its name.
        created_at: When it was made.
        size: Its bytes on disk; None until they are counted.
        os: The system in it.
        source: What it was made of.
        digest: The digest at the registry that it was pulled from; empty where it was not, or the server does not say.
        kind: `files`, or `disk` where it is the disk of a virtual machine; empty where the server does not say.
    """

    name: str
    created_at: datetime | None = None
    size: int | None = None
    os: str = ""
    source: str = ""
    digest: str = ""
    kind: str = ""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> ImageInfo:
        """Read a row of `GET /images`."""
        get = row.get
        return cls(
            text_of(get("name")),
            time_of(get("created_at")),
            whole_of(get("size")),
            text_of(get("os")),
            text_of(get("source")),
            kind=text_of(get("kind")),
        )


class ApiKey(NamedTuple):
    """An API key, without what opens the API.

    Attributes:
        id: What it is revoked by.
        label: What it is called.
        created_at: When it was made.
        used_at: When it was used last; None where it was not.
        role: What it may do: `admin`, `user` or `auditor`; empty where the server does not say.
    """

    id: str
    label: str = ""
    created_at: datetime | None = None
    used_at: datetime | None = None
    role: str = ""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> ApiKey:
        """Read a row of `GET /keys`."""
        get = row.get
        return cls(
            text_of(get("id")),
            text_of(get("label")),
            time_of(get("created_at")),
            time_of(get("used_at")),
            text_of(get("role")),
        )


class NewApiKey(NamedTuple):
    """An API key that was made just now.

    Attributes:
        id: What it is revoked by.
        label: What it is called.
        created_at: When it was made.
        used_at: None.
        key: What opens the API; no other answer has it.
        role: As of `ApiKey`.
    """

    id: str
    label: str
    created_at: datetime | None
    used_at: datetime | None
    key: str
    role: str = ""

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> NewApiKey:
        """Read an answer of `POST /keys`."""
        made = ApiKey.of(answer)
        return cls(made.id, made.label, made.created_at, made.used_at, text_of(answer.get("key")), made.role)


class FleetMember(NamedTuple):
    """A member of the fleet.

    Attributes:
        name: Its name.
        state: `connected`, `away`, `invited` (it has not joined yet), or `ahead` (it has policies that the server does not know).
        version: Of irons; empty where it is not connected.
        workers: Workers of its gateway; None where that is not known.
        sandboxes: How many are on it.
        revision: The last policy that was sent to it.
        pending: How many sandboxes have another policy there than they should.
        backlog: Bytes of its log that the server does not have; None where that is not known.
        skew: Seconds that its clock is ahead; None where that is not known.
    """

    name: str
    state: str
    version: str = ""
    workers: int | None = None
    sandboxes: int = 0
    revision: int = 0
    pending: int = 0
    backlog: int | None = None
    skew: float | None = None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> FleetMember:
        """Read a row of `GET /fleet/members`."""
        get = row.get
        skew = get("skew")
        return cls(
            text_of(get("name")),
            text_of(get("state")),
            text_of(get("version")),
            whole_of(get("workers")),
            whole_of(get("sandboxes")) or 0,
            whole_of(get("revision")) or 0,
            whole_of(get("pending")) or 0,
            whole_of(get("backlog")),
            round(skew, 1) if isinstance(skew, int | float) else None,
        )


class NewMember(NamedTuple):
    """A token for a member.

    Attributes:
        name: The member's.
        address: Where it reaches the server.
        token: By which it joins; no other answer has it.
    """

    name: str
    address: str
    token: str

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> NewMember:
        """Read an answer of `POST /fleet/members`."""
        return cls(text_of(answer.get("name")), text_of(answer.get("address")), text_of(answer.get("token")))
