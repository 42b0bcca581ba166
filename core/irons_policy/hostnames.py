"""Names and addresses as a sandbox sends them: read strictly, kept in one canonical spelling."""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv6Address
from typing import NamedTuple

from irons_policy.addresses import Address, ends_in_number, loose_ipv4, unmapped

MAX_NAME = 253
MAX_LABEL = 63
INTERNAL = "irons.internal"
"""The name that the gateway itself answers in every sandbox."""

_LABEL = re.compile(r"[a-z0-9_-]+")


class HostError(ValueError):
    """A host that cannot be judged; the message says why, in words fit for a log line."""


class Host(NamedTuple):
    """One host in its canonical spelling.

    Attributes:
        text: a lower-case name without a trailing dot, or the address as ``ipaddress`` writes it.
        address: the address when the host is a literal one, else None.
    """

    text: str
    address: Address | None = None

    def __str__(self) -> str:
        return self.text


def canonical_host(raw: str | bytes) -> Host:
    """Read a host as a sandbox sent it: in DNS, in a TLS ClientHello, in an HTTP authority, or as an address.

    Names must already be ASCII letters, digits, hyphens and underscores (RFC 1123, and RFC 2782 for the
    underscore); case and one trailing dot are folded. Anything that a resolver would take for an IPv4 address is
    one, in any spelling of ``inet_aton(3)``; an IPv4-mapped IPv6 address is the IPv4 address. IPv6 may stand
    in brackets, and never with a zone.

    Raises:
        HostError: with the reason.
    """
    if isinstance(raw, bytes):
        try:
            text = raw.decode("ascii")
        except UnicodeDecodeError:
            raise HostError("the name is not ASCII") from None
    else:
        text = raw
    if not text:
        raise HostError("the name is empty")
    if len(text) > MAX_NAME + 1:
        raise HostError(f"the name is longer than {MAX_NAME} bytes")
    if not text.isascii():
        raise HostError("the name is not ASCII")
    if not text.isprintable() or " " in text:
        raise HostError("the name holds a control character or a space")
    text = text.lower()
    if ":" in text or text.startswith("["):
        return _ipv6(text)
    text = text.removesuffix(".")
    check_labels(text)
    if not ends_in_number(text):
        return Host(text)
    address = loose_ipv4(text)
    if address is None:
        raise HostError(f"{text} ends in a number and is not an address")
    return Host(str(address), address)


def check_labels(name: str) -> None:
    """Hold a lower-case name, without its trailing dot, to the limits of RFC 1035 and to our characters.

    Raises:
        HostError: with the reason.
    """
    if len(name) > MAX_NAME:
        raise HostError(f"the name is longer than {MAX_NAME} bytes")
    if name.startswith("-"):
        # No resolver takes one (glibc refuses it), and a command line would take it for an option.
        raise HostError("the name begins with a hyphen")
    for label in name.split("."):
        if not label:
            raise HostError("the name has an empty label")
        if len(label) > MAX_LABEL:
            raise HostError(f"the name has a label longer than {MAX_LABEL} bytes")
        if not _LABEL.fullmatch(label):
            raise HostError("the name holds more than letters, digits, hyphens, underscores and dots")


def _ipv6(text: str) -> Host:
    if text.startswith("[") and text.endswith("]"):
        text = text[1:-1]
    if "%" in text:
        raise HostError("an address with a zone is never reachable from here")
    try:
        address = unmapped(IPv6Address(text))
    except AddressValueError:
        raise HostError("neither a name nor an IPv6 address") from None
    return Host(str(address), address)
