"""One open client for as long as the settings choose the same backend; the prompt and xonsh keep theirs here."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irons.client.api import Api
    from irons.host import PluginHost
    from irons.settings.settings import Settings

_CHOOSE = ("api_url", "api_key", "connect_timeout", "read_timeout")
"""Settings that make another client necessary."""


class Connections:
    """The client that is open now; threads share it."""

    def __init__(self, host: PluginHost, say: Callable[[str], None]) -> None:
        """Take the plugin host, and how a client that is debugged says what it does."""
        self._host = host
        self._say = say
        self._open: tuple[tuple[object, ...], Api] | None = None
        self._former: list[Api] = []
        self._lock = threading.Lock()

    def api(self, settings: Settings) -> Api:
        """Return the open client, or another where the settings choose another.

        The one it takes the place of may be in use by another thread: it stays open until the end.

        Raises:
            ConfigError: The settings choose no backend.
            LocalError: The local backend can't run here.
        """
        which = (*(settings[key] for key in _CHOOSE), settings.profile, settings.debug)
        with self._lock:
            if self._open is None or self._open[0] != which:
                self._change(which, settings)
            elif self._open[1].backend.local:
                # It may have ended since; asking for it brings it back.
                self._host.backend(settings.api_url, settings)
            assert self._open is not None  # noqa: S101 - it has just been made sure of
            return self._open[1]

    def _change(self, which: tuple[object, ...], settings: Settings) -> None:
        from irons.client.api import open_api

        api = open_api(settings, self._host, self._say if settings.debug else None)
        if self._open is not None:
            self._former.append(self._open[1])
        self._open = (which, api)

    def close(self) -> None:
        """Close every client there was."""
        with self._lock:
            for api in (*self._former, *([self._open[1]] if self._open else [])):
                api.close()
            self._former.clear()
            self._open = None
