"""Bringing the daemon back where it has gone, before a request is sent to it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress

from irons.errors import LocalError
from irons_local.daemon import client
from irons_local.paths import Paths

_LOOK_EVERY = 1.0


class RestartingTransport:
    """Looks after the daemon before each request, unless it did so within the last second; see `irons.hookspecs.Waker`.

    What waits or follows may outlive the daemon that it began with, and has no one else to bring it back. It may also
    outlive an upgrade: a newer daemon that serves serves it too.

    Args:
        paths: where the daemon is.
        environ: what one that must be started takes over from.

    Raises:
        LocalError: it can't run here, or is a newer one.
    """

    def __init__(self, paths: Paths, environ: Mapping[str, str]) -> None:
        self._paths, self._environ = paths, environ
        self._bring_up(newer=False)

    def before(self) -> None:
        """Look after the daemon."""
        if time.monotonic() - self._looked >= _LOOK_EVERY:
            # A keeper that hangs keeps no one from the control plane.
            with suppress(LocalError):
                self._bring_up(newer=True)

    def after_refusal(self) -> None:
        """Bring the daemon up. Raises `LocalError` where it is gone and can't be brought back."""
        self._bring_up(newer=True)

    def _bring_up(self, *, newer: bool) -> None:
        self._looked = time.monotonic()
        client.ensure(self._paths, self._environ, newer=newer)
