"""The token by which a machine joins a fleet: made by the server, valid once, carried to the member by a person."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
import secrets
from typing import Final, NamedTuple

PREFIX: Final = "irons-member-"
LASTS: Final = 600
"""Seconds for which a token is valid."""
MEMBER_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?", re.ASCII)
"""The name of a member: a host name, as Incus has it."""
_FINGERPRINT = re.compile(r"[0-9a-f]{64}", re.ASCII)
_LONGEST = 2048


class JoinTokenError(Exception):
    """A text is not a token; the message never has the text."""


class JoinToken(NamedTuple):
    """What a token says.

    Attributes:
        name: the member's.
        address: where the server listens, `HOST:PORT`.
        fingerprint: SHA-256 of the server's certificate.
        secret: what proves that the server made it.
    """

    name: str
    address: str
    fingerprint: str
    secret: str

    @classmethod
    def make(cls, name: str, address: str, fingerprint: str) -> JoinToken:
        """Make a token with a secret of 256 random bits."""
        return cls(name, address, fingerprint, secrets.token_urlsafe(32))

    @property
    def hash(self) -> str:
        """What the server keeps of the secret."""
        return hash_of(self.secret)

    def __repr__(self) -> str:
        return f"JoinToken({self.name!r})"

    def text(self) -> str:
        """The token as a person carries it."""
        packed = json.dumps(list(self), separators=(",", ":")).encode()
        return PREFIX + base64.urlsafe_b64encode(packed).decode().rstrip("=")


def hash_of(secret: str) -> str:
    """SHA-256 of a token's secret, which has 256 random bits."""
    return hashlib.sha256(secret.encode()).hexdigest()


def read_token(text: str) -> JoinToken:
    """Read what `JoinToken.text` wrote.

    Raises:
        JoinTokenError: it is not one.
    """
    packed = text.strip()
    if not packed.startswith(PREFIX) or len(packed) > _LONGEST:
        raise JoinTokenError("this is not a token of `irons fleet add`")
    try:
        body = packed.removeprefix(PREFIX)
        given = json.loads(base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True))
    except (ValueError, binascii.Error, RecursionError):
        raise JoinTokenError("the token is damaged; copy it again, whole") from None
    if (
        not isinstance(given, list)
        or len(given) != len(JoinToken._fields)
        or not all(isinstance(each, str) for each in given)
    ):
        raise JoinTokenError("the token is damaged; copy it again, whole")
    token = JoinToken(*given)
    if not MEMBER_NAME.fullmatch(token.name) or not _FINGERPRINT.fullmatch(token.fingerprint):
        raise JoinTokenError("the token is damaged; copy it again, whole")
    split_address(token.address)
    return token


def split_address(address: str) -> tuple[str, int]:
    """The host and the port of `HOST:PORT`; an IPv6 address is in brackets.

    Raises:
        JoinTokenError: it is not that.
    """
    host, _, port = address.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65_536:
        raise JoinTokenError(f"{address[:80]!r} is not HOST:PORT")
    return host, int(port)
