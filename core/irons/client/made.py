"""Which sandboxes a profile made: one small file each, so that creates that run side by side lose nothing.

Sandboxes are known by their ids: a name may be used again by someone else.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from irons.files import make_private

if TYPE_CHECKING:
    from irons.settings.settings import Settings


SETTLED = 3600.0
"""Seconds after which a sandbox that the server does not list is forgotten: a list may be older than a create next to it."""


class MadeSandboxes:
    """The sandboxes that one profile made at one backend."""

    def __init__(self, directory: Path) -> None:
        """Take the directory that holds their files."""
        self.directory = directory

    @classmethod
    def of(cls, settings: Settings) -> MadeSandboxes:
        """Return those of the settings' profile and backend."""
        which = hashlib.sha256(f"{settings.profile}\0{settings.api_url}".encode()).hexdigest()[:16]
        return cls(settings.state_dir / "made" / which)

    def add(self, identity: str) -> None:
        """Remember a sandbox by its id; a directory that can't be written is done without."""
        if not identity:
            return
        with suppress(OSError):
            make_private(self.directory)
            (self.directory / _file(identity)).touch(mode=0o600)

    def among(self, identities: Iterable[str]) -> frozenset[str]:
        """Return which of these ids this profile made."""
        try:
            files = {path.name for path in self.directory.iterdir()}
        except OSError:
            return frozenset()
        return frozenset(identity for identity in identities if identity and _file(identity) in files)

    def keep(self, identities: Iterable[str]) -> None:
        """Forget what was made `SETTLED` seconds ago and is not among these, which are all that the server has."""
        files = {_file(identity) for identity in identities}
        settled = time.time() - SETTLED
        with suppress(OSError):
            for path in self.directory.iterdir():
                if path.name not in files and path.stat().st_mtime < settled:
                    path.unlink(missing_ok=True)


def _file(identity: str) -> str:
    """The file of an id: what a server calls an id may be any text."""
    return hashlib.sha256(identity.encode(errors="replace")).hexdigest()[:32]
