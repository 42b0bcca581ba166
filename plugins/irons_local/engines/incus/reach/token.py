"""The token that `incus config trust add` prints: base64 of JSON, which names the cluster's certificate and a secret for one use."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Any, NamedTuple

_DIGITS = 64
_LONGEST = 65_536


class TokenError(Exception):
    """A token is not one, or is not valid any more; the message says which."""


class TrustToken(NamedTuple):
    """A token.

    Attributes:
        text: itself, which is a secret.
        fingerprint: SHA-256 of the cluster's certificate, in hexadecimal.
        addresses: HOST:PORT of the members.
    """

    text: str
    fingerprint: str
    addresses: tuple[str, ...]

    def __repr__(self) -> str:
        return f"TrustToken({self.fingerprint[:12]}…)"


def read_token(given: str, now: datetime) -> TrustToken:
    """Read a token as it was printed.

    Args:
        given: what was typed or piped; further lines around it, such as Incus prints, are passed over.
        now: the time, in UTC.

    Raises:
        TokenError: with why.
    """
    words = given[:_LONGEST].split()
    if not words:
        raise TokenError("there is no token on standard input")
    text = words[-1]
    try:
        body: Any = json.loads(base64.b64decode(text, validate=True))
        fingerprint = str(body["fingerprint"]).lower()
        addresses = tuple(str(each) for each in body["addresses"])
        secret, until = str(body["secret"]), str(body.get("expires_at") or "")
    except (binascii.Error, ValueError, KeyError, TypeError, AttributeError):
        raise TokenError("this is not a token of `incus config trust add`") from None
    if len(fingerprint) != _DIGITS or not set(fingerprint) <= set("0123456789abcdef") or not secret:
        raise TokenError("this is not a token of `incus config trust add`")
    end = _end(until)
    if end is not None and end < now:
        raise TokenError(f"the token ended at {end:%Y-%m-%dT%H:%M:%SZ}")
    return TrustToken(text, fingerprint, addresses)


def _end(until: str) -> datetime | None:
    """When a token ends; None where it does not, which is year 1."""
    try:
        found = datetime.fromisoformat(until.partition(".")[0].removesuffix("Z"))
    except ValueError:
        return None
    return None if found.year == 1 else found.replace(tzinfo=found.tzinfo or UTC)
