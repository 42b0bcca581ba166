"""The proxy by which this machine reaches the internet, where it has no other way: the setting, and what it holds for.

The setting has a user and a password in it. They are shown nowhere: not in errors, not by `repr`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

from irons_policy.addresses import Address, unmapped
from irons_policy.hostnames import Host, HostError, canonical_host
from irons_policy.patterns import DEFAULT_PORTS, Pattern, PatternError, read_pattern

_FORM = "http://[USER:PASSWORD@]HOST:PORT"
_LONGEST = 1024


class UpstreamError(ValueError):
    """The setting is invalid; the message says why, and holds nothing of its value."""


@dataclass(frozen=True, slots=True)
class Upstream:
    """An HTTP proxy for what the gateway dials.

    Attributes:
        host: the proxy's name or address.
        port: its TCP port.
        credentials: `user:password`, or empty.
        direct: hosts that are dialled without it, on every port.
        resolves: it is given names, which it resolves, in place of addresses that were checked here.
    """

    host: Host
    port: int
    credentials: bytes = field(default=b"", repr=False)
    direct: tuple[Pattern, ...] = ()
    resolves: bool = False

    def is_direct(self, host: Host, address: Address | None = None) -> bool:
        """True where `no_proxy` has a host, or the address that it leads to."""
        led = None if address is None else Host(str(unmapped(address)), unmapped(address))
        return any(
            pattern.covers_host(host) or (led is not None and pattern.covers_host(led))
            for pattern in self.direct
        )

    @property
    def authorization(self) -> bytes | None:
        """The value of `Proxy-Authorization` (RFC 7617)."""
        return b"Basic " + base64.b64encode(self.credentials) if self.credentials else None

    def to_json(self) -> dict[str, Any]:
        """The JSON form, for the gateway alone: it has the credentials."""
        return {
            "host": self.host.text,
            "port": self.port,
            "credentials": base64.b64encode(self.credentials).decode("ascii"),
            "direct": [pattern.text for pattern in self.direct],
            "resolves": self.resolves,
        }

    @classmethod
    def from_json(cls, given: object) -> Upstream | None:
        """Read the JSON form back; None where there is no proxy.

        Raises:
            UpstreamError: it is malformed.
        """
        if given is None:
            return None
        try:
            fields: Mapping[str, Any] = dict(given)  # type: ignore[call-overload]
            return cls(
                canonical_host(str(fields["host"])),
                int(fields["port"]),
                base64.b64decode(str(fields["credentials"])),
                tuple(read_pattern(str(text)) for text in fields["direct"]),
                bool(fields["resolves"]),
            )
        except (LookupError, TypeError, ValueError):
            raise UpstreamError("the upstream proxy is malformed") from None


def read_upstream(local: Mapping[str, Any]) -> Upstream | None:
    """Read the table `[local]` of the settings; None where it names no proxy.

    Raises:
        UpstreamError: a setting is invalid.
    """
    url = local.get("upstream_proxy", "")
    if not isinstance(url, str):
        raise UpstreamError(f"local.upstream_proxy is text: {_FORM}")
    resolves = local.get("upstream_resolves", False)
    if not isinstance(resolves, bool):
        raise UpstreamError("local.upstream_resolves is true or false")
    direct = local.get("no_proxy", [])
    if not isinstance(direct, list):
        raise UpstreamError("local.no_proxy is a list of hosts")
    # Checked without a proxy, too: whoever adds one later relies on them.
    patterns = tuple(_patterns(direct))
    if not url:
        return None
    host, port, credentials = _read_url(url)
    return Upstream(host, port, credentials, patterns, resolves)


def _read_url(url: str) -> tuple[Host, int, bytes]:
    if len(url) > _LONGEST or not url.isprintable() or " " in url:
        raise UpstreamError(f"local.upstream_proxy is not a proxy's URL; write {_FORM}")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise UpstreamError(f"local.upstream_proxy is not a proxy's URL; write {_FORM}") from None
    if parts.scheme != "http":
        raise UpstreamError(f"local.upstream_proxy is the URL of an HTTP proxy; write {_FORM}")
    if parts.path not in ("", "/") or parts.query or parts.fragment:
        raise UpstreamError(f"local.upstream_proxy has no path; write {_FORM}")
    if not port:
        raise UpstreamError(f"local.upstream_proxy lacks its port; write {_FORM}")
    try:
        host = canonical_host(parts.hostname or "")
    except HostError:
        raise UpstreamError(f"local.upstream_proxy has no valid host; write {_FORM}") from None
    user, colon, password = (parts.netloc.rpartition("@")[0]).partition(":")
    name = unquote_to_bytes(user)
    credentials = name + b":" + unquote_to_bytes(password) if user or colon else b""
    if b":" in name or any(byte < 0x20 or byte == 0x7F for byte in credentials):
        raise UpstreamError(
            "local.upstream_proxy has a user or password with a character that cannot be sent"
        )
    return host, port, credentials


def _patterns(texts: Iterable[object]) -> Iterable[Pattern]:
    for text in texts:
        if not isinstance(text, str):
            raise UpstreamError("local.no_proxy is a list of hosts")
        try:
            pattern = read_pattern(text)
        except PatternError as error:
            raise UpstreamError(f"local.no_proxy: {text!r}: {error}") from None
        if pattern.ports != DEFAULT_PORTS:
            raise UpstreamError(f"local.no_proxy: {text!r}: name hosts without ports")
        yield pattern
