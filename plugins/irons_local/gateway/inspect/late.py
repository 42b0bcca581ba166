"""What shows up on a connection once its server is reached: who judges it, and how it is refused."""

from __future__ import annotations

from typing import Protocol

from irons_local.gateway.http2.conversation import Http2
from irons_local.gateway.http2.frames import ENHANCE_YOUR_CALM, Http2Error
from irons_policy.causes import Cause
from irons_policy.hostnames import Host


class Check(Protocol):
    """Judges names that a connection says in the clear once its server is reached; raises where they are refused."""

    def __call__(
        self, claimed: tuple[Host, ...], protocol: str, alert: bytes = b"", *, proxied: bool = False
    ) -> None:
        """Judge.

        Args:
            claimed: the names.
            protocol: what says them: http or tls.
            alert: what refuses a ClientHello.
            proxied: they are sent as to a proxy, in an absolute target.
        """


class LateError(Exception):
    """Something after the dial is refused for what it is.

    Attributes:
        cause: why, for programs.
        host: the name it asked for, where that could be read.
        protocol: what it spoke.
        alert: the TLS alert that refuses it.
    """

    def __init__(
        self, reason: str, protocol: str, cause: Cause, host: Host | None = None, alert: bytes = b""
    ) -> None:
        super().__init__(reason)
        self.cause = cause
        self.host = host
        self.protocol = protocol
        self.alert = alert


def faulty(engine: Http2, error: Http2Error) -> LateError:
    """What ends a connection that broke the protocol; its GOAWAY is ready to be sent."""
    engine.end(error)
    cause = Cause.CAP if error.code == ENHANCE_YOUR_CALM else Cause.MALFORMED
    return LateError(f"malformed HTTP/2: {error}", "http", cause)
