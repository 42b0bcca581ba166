"""The aliases `@NAME`, one for each sandbox on hand, and `@irons NAME` for all that have none.

They are lists, not functions: xonsh runs them as any program, in pipes, captures and jobs, on every version.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from irons_repl.xonsh_face.face import Face

SWITCH = "IRONS_PLACES"
"""The variable that turns the aliases off."""

ANY = "@irons"
"""The alias whose first word is the sandbox."""

PROCESS = (sys.executable, "-P", "-m", "irons_repl.xonsh_face.in_sandbox")

_PLAIN = re.compile(r"\w[\w.-]*")
"""Names that xonsh reads as one word after the @."""

MOST = 1000
"""Sandboxes that get an alias."""

_REFRESH_AFTER = 60.0
"""Seconds after which the list is asked for again at a prompt, by a process of its own."""


class Places:
    """The aliases that were added, kept in step with the names on hand."""

    def __init__(self, face: Face) -> None:
        """Take what xonsh keeps between irons commands."""
        self._face = face
        self._added: dict[str, list[str]] = {}
        self._names: Mapping[str, str] | None = None

    def keep_in_step(self) -> None:
        """Add aliases for new sandboxes and remove those of sandboxes that are gone; what someone else named so is left alone."""
        names = self._on_hand() if self._face.xsh.env.get(SWITCH, True) else None
        if names is None or names != self._names:
            self._set(_wanted(names))
            self._names = names

    def at_prompt(self) -> None:
        """Do so before a prompt; have the list asked for again where it is old."""
        from irons.client.names import NameCache
        from irons.client.refreshing import refresh_detached
        from irons.errors import IronsError

        self.keep_in_step()
        if not self._added:
            return
        try:
            settings = self._face.settings()
        except IronsError:
            return
        if NameCache.of(settings).age() > _REFRESH_AFTER:
            refresh_detached(settings)

    def remove(self) -> None:
        """Remove every alias that was added."""
        self._set({})
        self._names = None

    def sandbox_of(self, words: list[str]) -> tuple[str, int] | None:
        """Return the sandbox that a command line runs in and how many of its words name it; None where it runs here."""
        if words[:1] == [ANY] and len(words) > 1:
            return words[1], 2
        if words and words[0] in self._added and self._is_own(words[0]):
            return words[0][1:], 1
        begins = len(PROCESS)
        # xonsh shows its completers the alias's meaning in the place of its name.
        if tuple(words[:begins]) == PROCESS and len(words) > begins:
            return words[begins], begins + 1
        return None

    def _on_hand(self) -> Mapping[str, str]:
        from irons.client.names import NameCache
        from irons.errors import IronsError

        try:
            return NameCache.of(self._face.settings()).read()
        except IronsError:
            return {}

    def _set(self, wanted: Mapping[str, list[str]]) -> None:
        aliases: Any = self._face.xsh.aliases
        for name in [name for name in self._added if name not in wanted]:
            if self._is_own(name):
                aliases.pop(name, None)
            del self._added[name]
        for name, words in wanted.items():
            if name not in self._added and name not in aliases:
                aliases[name] = words
                self._added[name] = words

    def _is_own(self, name: str) -> bool:
        """Tell whether an alias is still what was put there."""
        aliases = self._face.xsh.aliases
        return name in aliases and aliases[name] is self._added[name]


def _wanted(names: Mapping[str, str] | None) -> dict[str, list[str]]:
    """The aliases for these sandboxes; none at all for None."""
    if names is None:
        return {}
    plain = islice((name for name in names if _PLAIN.fullmatch(name)), MOST)
    return {ANY: list(PROCESS), **{f"@{name}": [*PROCESS, name] for name in plain if f"@{name}" != ANY}}


def listener_of(places: Places) -> Callable[..., None]:
    """Return what xonsh calls before each prompt; it must be a function, as xonsh sets attributes of it."""

    def irons_places(**_: object) -> None:
        places.at_prompt()

    return irons_places
