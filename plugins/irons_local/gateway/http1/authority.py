"""The authority of a request: the host it asks, in one spelling; and the refusal of one that is malformed."""

from __future__ import annotations

import re
from typing import NamedTuple

from irons_policy.causes import Cause
from irons_policy.hostnames import Host, HostError, canonical_host

_AUTHORITY = re.compile(rb"(?P<host>[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::(?P<port>[0-9]{0,5}))?")


PROXY = "a proxy would hide which host it asks"


class BadRequestError(ValueError):
    """A request that is refused for what it is, whoever it is for.

    Attributes:
        cause: why, for programs.
        host: the name it asked for, where that could be read.
    """

    cause = Cause.MALFORMED

    def __init__(self, reason: str, host: Host | None = None) -> None:
        super().__init__(reason)
        self.host = host

    @property
    def reason(self) -> str:
        """Why, for people."""
        return f"malformed request: {self}"


class NotSpokenError(BadRequestError):
    """A well-formed request for something that is not spoken here."""

    cause = Cause.PROTOCOL

    @property
    def reason(self) -> str:
        """Why, for people."""
        return str(self)


class Authority(NamedTuple):
    """A host, and the port after it where there was one."""

    host: Host
    port: int | None


def parse_authority(raw: bytes) -> Authority:
    """Read `host[:port]` (RFC 9110, section 7.2) strictly: no user information, no odd characters, no other spelling of an address.

    Raises:
        BadRequestError: it is not one.
    """
    match = _AUTHORITY.fullmatch(raw)
    if match is None:
        raise BadRequestError("its host is malformed")
    host, port = match["host"], match["port"]
    number = int(port) if port else None
    if number is not None and not 0 < number < 65_536:
        raise BadRequestError("the port after its host is malformed")
    try:
        return Authority(canonical_host(host), number)
    except HostError as error:
        raise BadRequestError(f"its host is malformed: {error}") from None


def spell(authority: Authority) -> bytes:
    """An authority in its one spelling."""
    host = authority.host
    text = f"[{host.text}]" if host.address is not None and host.address.version == 6 else host.text
    return (text if authority.port is None else f"{text}:{authority.port}").encode("ascii")
