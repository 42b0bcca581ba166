"""The way to the control plane's socket, which brings the daemon back where it has gone.

`irons.backends.load_httpx` comes before this module, which imports httpx.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

import httpx

from irons_plugins.local import daemon
from irons_plugins.local.places import Places

_LOOK_EVERY = 1.0


class Reviving(httpx.HTTPTransport):
    """Looks after the daemon before each request, unless it did so within the last second.

    What waits or follows may outlive the daemon that it began with, and has nobody else to bring it back.

    Args:
        places: where the daemon is.
        environ: what one that must be started takes over from.

    Raises:
        LocalError: it can't run here, or is a newer one; so does a request.
    """

    def __init__(self, places: Places, environ: Mapping[str, str]) -> None:
        super().__init__(uds=str(places.api_socket))
        self._places, self._environ = places, environ
        self._look()

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; see `httpx.HTTPTransport`."""
        if time.monotonic() - self._looked >= _LOOK_EVERY:
            self._look()
        try:
            return super().handle_request(request)
        except httpx.ConnectError:
            # Nothing was sent yet.
            self._look()
            return super().handle_request(request)

    def _look(self) -> None:
        daemon.ensure(self._places, self._environ)
        self._looked = time.monotonic()
