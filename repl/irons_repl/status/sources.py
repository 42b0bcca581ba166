"""What completion has on hand in the prompt: the caches of the backend that the session's settings choose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from irons.cli.completing import Sources
from irons.cli.topics import TOPICS
from irons.client.names import NameCache
from irons.errors import IronsError

if TYPE_CHECKING:
    from irons_repl.run.session import ShellSession


def sources(session: ShellSession) -> Sources:
    """Return the sources; each reads one small file where that has changed, and never asks the server."""
    known: dict[tuple[str, str, str], NameCache] = {}

    def of(what: str) -> Callable[[], Mapping[str, str]]:
        def read() -> Mapping[str, str]:
            try:
                settings = session.settings()
            except IronsError:
                return {}
            key = (what, settings.profile, settings.api_url)
            if key not in known:
                known[key] = NameCache.of(settings, what=what)
            return known[key].read()

        return read

    def aliases() -> Mapping[str, str]:
        try:
            return session.settings().aliases
        except IronsError:
            return {}

    return Sources(
        sandboxes=of("names"),
        domains=of("domains"),
        images=of("images"),
        labels=of("labels"),
        topics=lambda: dict.fromkeys(TOPICS, "topic"),
        aliases=aliases,
    )
