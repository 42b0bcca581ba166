"""The way to the control plane's socket, which brings the daemon back where it has gone.

`irons.backends.load_httpx` comes before this module, which imports httpx.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

import httpx

from irons.errors import LocalError
from irons_plugins.local import daemon
from irons_plugins.local.places import Places

_LOOK_EVERY = 1.0


class Reviving(httpx.HTTPTransport):
    """Looks after the daemon before each request, unless it did so within the last second.

    What waits or follows may outlive the daemon that it began with, and has nobody else to bring it back. It may also
    outlive an upgrade: a newer daemon that serves serves it too.

    Args:
        places: where the daemon is.
        environ: what one that must be started takes over from.

    Raises:
        LocalError: it can't run here, or is a newer one; a request, where it is gone and can't be brought back.
    """

    def __init__(self, places: Places, environ: Mapping[str, str]) -> None:
        super().__init__(uds=str(places.api_socket))
        self._places, self._environ = places, environ
        self._bring_up(newer=False)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request; see `httpx.HTTPTransport`."""
        if time.monotonic() - self._looked >= _LOOK_EVERY:
            # A keeper that hangs keeps nobody from the control plane.
            with suppress(LocalError):
                self._bring_up(newer=True)
        try:
            return super().handle_request(request)
        except httpx.ConnectError:
            # Nothing was sent yet.
            self._bring_up(newer=True)
            return super().handle_request(request)

    def _bring_up(self, *, newer: bool) -> None:
        self._looked = time.monotonic()
        daemon.ensure(self._places, self._environ, newer=newer)
