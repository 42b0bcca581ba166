"""The cluster that this machine has joined as a client: a directory with its certificate, our certificate and our key.

The directory is there, whole, or not at all. Its files are the owner's alone.
"""

from __future__ import annotations

import json
import ssl
from pathlib import Path
from typing import NamedTuple

from irons_local.config.incus import CLUSTER
from irons_local.errors import EngineError

SERVER, CLIENT, KEY = "server.crt", "client.crt", "client.key"


class JoinedError(EngineError):
    """What a cluster is reached by cannot be read, or is not valid any more."""

    def __init__(self, message: str) -> None:
        super().__init__("machine", message, "irons fleet leave, then irons fleet join")


class Joined(NamedTuple):
    """A cluster.

    Attributes:
        directory: where the files are.
        urls: where its members answer, the one that was asked for first.
        fingerprint: SHA-256 of its certificate, in hexadecimal.
        client: the same of ours.
        until: when ours ends, as RFC 3339 in UTC.
    """

    directory: Path
    urls: tuple[str, ...]
    fingerprint: str
    client: str
    until: str

    @classmethod
    def read(cls, directory: Path) -> Joined | None:
        """The cluster of a directory; None where there is none.

        Raises:
            JoinedError: it cannot be read.
        """
        path = directory / CLUSTER
        try:
            body = json.loads(path.read_bytes())
            urls = tuple(str(each) for each in body["urls"])
            fingerprint, client, until = (str(body[name]) for name in ("fingerprint", "client", "until"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise JoinedError(f"{path} cannot be read: {error}") from error
        if not urls:
            raise JoinedError(f"{path} names no member")
        return cls(directory, urls, fingerprint, client, until)

    def text(self) -> str:
        """What `read` reads."""
        return json.dumps(
            {
                "urls": self.urls,
                "fingerprint": self.fingerprint,
                "client": self.client,
                "until": self.until,
            }
        )

    def context(self) -> ssl.SSLContext:
        """TLS with our certificate, to whoever has the cluster's.

        Raises:
            JoinedError: a file is missing or damaged.
        """
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.minimum_version = ssl.TLSVersion.TLSv1_3
        # It names one member and no address. That it is the cluster's certificate itself says more.
        made.check_hostname = False
        try:
            made.load_verify_locations(self.directory / SERVER)
            made.load_cert_chain(self.directory / CLIENT, self.directory / KEY)
        except (OSError, ssl.SSLError) as error:
            raise JoinedError(f"the certificates in {self.directory} cannot be read: {error}") from error
        return made
