"""Ways to an Incus: where requests go, and connections for its events."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import httpx

from irons_local.engines.incus.reach.joined import Joined, JoinedError

_CONNECTED_WITHIN = 20.0
_EXPIRED, _NOT_YET_VALID = 10, 9
"""Errors of OpenSSL's verification (X509_V_ERR_CERT_HAS_EXPIRED and X509_V_ERR_CERT_NOT_YET_VALID)."""

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Way(Protocol):
    """A way to an Incus.

    Attributes:
        name: what people call it.
        bases: URLs at which the same Incus answers; another is tried where one cannot be connected to.
    """

    name: str
    bases: tuple[str, ...]

    def transport(self) -> httpx.AsyncBaseTransport:
        """What carries requests."""
        ...

    async def open(self) -> Streams:
        """Open a connection on which HTTP/1.1 is spoken.

        Raises:
            OSError: nothing answers.
        """
        ...

    def is_gone(self) -> bool:
        """Whether certainly nothing answers, rather than something that is busy, barred or behind a network."""
        ...

    def explain(self, _error: BaseException, /) -> str:
        """Why no connection came about, as one line; "" where the error's own text is as good."""
        ...


class SocketWay:
    """By the unix socket of an Incus on this machine.

    Args:
        path: of the socket.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)
        self.bases: tuple[str, ...] = ("http://incus",)

    def transport(self) -> httpx.AsyncBaseTransport:
        """See `Way.transport`."""
        return httpx.AsyncHTTPTransport(uds=str(self.path))

    async def open(self) -> Streams:
        """See `Way.open`."""
        return await asyncio.open_unix_connection(self.path)

    def is_gone(self) -> bool:
        """See `Way.is_gone`."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
            try:
                asking.connect(str(self.path))
            except (FileNotFoundError, ConnectionRefusedError):
                return True
            except OSError:
                return False
        return False

    def explain(self, _error: BaseException, /) -> str:
        """See `Way.explain`."""
        return ""


class HttpsWay:
    """By HTTPS, at any member of a cluster.

    Args:
        joined: the cluster.

    Raises:
        JoinedError: what it is reached by cannot be read.
    """

    def __init__(self, joined: Joined) -> None:
        self.name = joined.urls[0]
        self.bases = joined.urls
        self._joined = joined
        self._context = joined.context()

    def transport(self) -> httpx.AsyncBaseTransport:
        """See `Way.transport`."""
        return httpx.AsyncHTTPTransport(verify=self._context, trust_env=False)

    async def open(self) -> Streams:
        """See `Way.open`."""
        failure: Exception = OSError("there is no address")
        for base in self.bases:
            parts = urlsplit(base)
            try:
                async with asyncio.timeout(_CONNECTED_WITHIN):
                    return await asyncio.open_connection(
                        parts.hostname, parts.port, ssl=self._context, server_hostname=parts.hostname
                    )
            except (OSError, TimeoutError) as error:
                failure = error
        raise failure

    def is_gone(self) -> bool:
        """See `Way.is_gone`: a network says nothing of that."""
        return False

    def explain(self, error: BaseException, /) -> str:
        """See `Way.explain`."""
        found = next(
            (each for each in _causes(error) if isinstance(each, ssl.SSLCertVerificationError)), None
        )
        if found is None:
            return ""
        if found.verify_code == _EXPIRED:
            return "the certificate of the cluster has expired, or the clock of this machine is wrong"
        if found.verify_code == _NOT_YET_VALID:
            return "the certificate of the cluster is not valid yet: the clock of this machine is wrong"
        return (
            f"another certificate answers than that of the cluster ({self._joined.fingerprint[:12]}); if the cluster has a new "
            "one, leave and join again"
        )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def joined_way(directory: Path) -> HttpsWay | None:
    """The way to the cluster that this machine has joined; None where it has joined none.

    Raises:
        JoinedError: what it is reached by cannot be read.
    """
    joined = Joined.read(directory)
    return None if joined is None else HttpsWay(joined)


__all__ = ["HttpsWay", "JoinedError", "SocketWay", "Streams", "Way", "joined_way"]
