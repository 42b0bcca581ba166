"""The ground under every dial: this machine's network as it is now, and the ports irons itself listens on."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from irons_plugins.local.ground import Ground, Listener, read_ground


class Listeners:
    """Knows where irons listens, as the control plane says."""

    def __init__(self) -> None:
        self._known: frozenset[Listener] = frozenset()

    def put(self, listeners: Any) -> None:
        """Take `[[address, port], …]` in place of what was known; what makes no sense is left out."""
        known: set[Listener] = set()
        for entry in listeners if isinstance(listeners, list) else []:
            if isinstance(entry, list) and len(entry) == 2 and isinstance(entry[1], int):
                try:
                    known.add((ip_address(str(entry[0])), entry[1]))
                except ValueError:
                    continue
        self._known = frozenset(known)

    def ground(self) -> Ground:
        """The ground at this moment.

        Raises:
            OSError: the kernel cannot be asked; then nothing may be dialled.
        """
        return read_ground(self._known)
