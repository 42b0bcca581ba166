"""What completion has on hand in the prompt: the caches of the backend that the session's settings choose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from irons.cli.on_hand import sources_of
from irons.client.names import NameCache
from irons.errors import IronsError

if TYPE_CHECKING:
    from irons.cli.completing import Sources
    from irons.settings.settings import Settings
    from irons_repl.run.session import ShellSession


def sources(session: ShellSession) -> Sources:
    """Return the sources; each reads one small file where that has changed, and never asks the server."""
    known: dict[tuple[str, str, str], NameCache] = {}

    def settings() -> Settings | None:
        try:
            return session.settings()
        except IronsError:
            return None

    def read(what: str) -> Mapping[str, str]:
        chosen = settings()
        if chosen is None:
            return {}
        key = (what, chosen.profile, chosen.api_url)
        if key not in known:
            known[key] = NameCache.of(chosen, what=what)
        return known[key].shared()

    return sources_of(settings, read, lambda: session.env, session.host)
