"""One open client for as long as the settings choose the same backend; the prompt and xonsh keep theirs here."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irons.api import Api
    from irons.host import PluginHost
    from irons.settings import Settings

_CHOOSE = ("api_url", "api_key", "connect_timeout", "read_timeout")
"""Settings that make another client necessary."""


class Connections:
    """The client that is open now."""

    def __init__(self, host: PluginHost, say: Callable[[str], None]) -> None:
        """Take the plugin host, and how a client that is debugged says what it does."""
        self._host = host
        self._say = say
        self._open: tuple[tuple[object, ...], Api] | None = None
        self._former: list[Api] = []

    def api(self, settings: Settings) -> Api:
        """Return the open client, or another where the settings choose another.

        The one it takes the place of may be in use by another thread: it stays open until the end.

        Raises:
            ConfigError: The settings choose no backend.
            LocalError: The local backend can't run here.
        """
        from irons.api import open_api

        which = (*(settings[key] for key in _CHOOSE), settings.profile, settings.debug)
        if self._open is not None and self._open[0] == which:
            api = self._open[1]
            if api.backend.local:
                # It may have ended since; asking for it brings it back.
                self._host.backend(settings.api_url, settings)
            return api
        api = open_api(settings, self._host, self._say if settings.debug else None)
        if self._open is not None:
            self._former.append(self._open[1])
        self._open = (which, api)
        return api

    def close(self) -> None:
        """Close every client there was."""
        for api in (*self._former, *([self._open[1]] if self._open else [])):
            api.close()
        self._former.clear()
        self._open = None
