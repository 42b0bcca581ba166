"""What every call of the client is made by: one connection pool, and what the server can beyond the wire contract."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import quote

from irons.client.transport import Transport
from irons.errors import NotFound, Unsupported

if TYPE_CHECKING:
    from irons.client.models.server import ServerInfo
    from irons.hookspecs import Backend
    from irons.settings.settings import Settings


class Calls:
    """One client, one connection pool; `irons.client.api.Api` has a method a call."""

    def __init__(self, backend: Backend, settings: Settings, log: Any = None) -> None:
        """Take where requests go and how long to wait; `log` is called with a line per request when debugging."""
        self.backend = backend
        self._settings = settings
        self._wire = Transport(backend, settings, log)
        self._extensions: frozenset[str] | None = None
        self._is_irons = False

    def begin_command(self) -> None:
        """Give the requests from now on an id of their own, where a face keeps this client from command to command."""
        self._wire.renew_id()

    @property
    def face(self) -> str:
        """What this client says that it is: `cli`, `prompt`, `library`, …; the server's change log has it as a claim."""
        return self._wire.face

    @face.setter
    def face(self, face: str) -> None:
        # It goes into a header as it is.
        if not face.isascii() or not face.isprintable():
            raise ValueError(f"the name of a face is printable ASCII, not {face!r}")
        self._wire.face = face

    def version(self) -> ServerInfo:
        """What the server is; raises `Unsupported` at other servers."""
        from irons.client.models.server import ServerInfo

        return ServerInfo.of(self.call("GET", "/version", route=True))

    @property
    def extensions(self) -> frozenset[str]:
        """What the server can beyond the wire contract, asked once; nothing where it does not say."""
        if self._extensions is None:
            try:
                server = self.version()
            except (Unsupported, NotFound):
                self._extensions = frozenset()
            else:
                self._extensions, self._is_irons = frozenset(server.extensions), server.name == "irons"
        return self._extensions

    def need(self, extension: str, what: str) -> None:
        """Raise `Unsupported` where the server lacks an extension; `what` is what would be needed ("a server that …")."""
        if extension not in self.extensions:
            older = "the server is an older irons: end it by `irons local down` where it runs; the next command starts the newer one"
            raise Unsupported(
                f"this needs {what}; this one does not report that it can",
                hint=older if self._is_irons else "irons' own server can: --api-url local",
            )

    def call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        retry: bool | None = None,
        removes: bool | None = None,
        route: bool = False,
        patience: float = 0.0,
        within: float | None = None,
    ) -> dict[str, Any]:
        """Make one call and return its JSON object (empty where the body is), for routes that have no method here.

        Args:
            method: GET, POST, PUT, PATCH, DELETE.
            path: Relative to the API URL, its segments percent-encoded.
            body: Sent as JSON.
            params: The query.
            retry: Whether it may be sent again; by default all but POST /sandboxes may.
            removes: The call removes things: where its answer was lost and it is sent again, a 404 means that it is done.
                By default DELETE does.
            route: The route is not in every server: a 404 or 405 that names no thing is `Unsupported`.
            patience: Seconds that the server may take beyond the read timeout.
            within: Seconds that neither timeout exceeds.
        """
        return self._wire.call(
            method,
            path,
            body,
            params=params,
            retry=retry is not False,
            removes=method == "DELETE" if removes is None else removes,
            route=route,
            patience=patience,
            within=within,
        )

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def segment(name: str) -> str:
    """Return a name as one segment of a path."""
    return quote(name, safe="")
