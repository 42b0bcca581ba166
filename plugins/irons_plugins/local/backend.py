"""From the URL `local` to a running daemon and an open HTTP transport on its socket."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from irons.backends import load_httpx
from irons.errors import LocalError
from irons.hookspecs import Backend

if TYPE_CHECKING:
    from irons.settings import Settings

ELSEWHERE = "or use a server elsewhere: irons config set api_url URL, and api_key KEY"


def local_backend(settings: Settings) -> Backend:
    """Bring the daemon up where it is not, and return how to reach it.

    Raises:
        LocalError: It can't run here; the hint names the check of `irons doctor` that explains it.
    """
    if sys.platform != "linux":
        raise LocalError(
            "the local backend runs on Linux only",
            hint="irons config set api_url URL, and api_key KEY, name a server elsewhere",
        )
    from irons_plugins.local import daemon
    from irons_plugins.local.places import Places, PlacesError

    try:
        places = Places.of(settings.env)
        daemon.ensure(places, settings.env)
    except PlacesError as error:
        raise LocalError(str(error), hint=ELSEWHERE) from None
    transport = load_httpx().HTTPTransport(uds=str(places.api_socket))
    return Backend("http://irons", transport, local=True)
