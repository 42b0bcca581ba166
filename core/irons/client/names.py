"""Sandbox names on hand now, with their states: one cache for the prompt, xonsh and shell completion.

A read returns what is there at once; `irons.client.refreshing` asks for it again.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from irons.files import digest, make_private, write_whole

if TYPE_CHECKING:
    from irons.settings.settings import Settings

STALE = 10.0
"""Seconds after which faces that live only for a moment have what is on hand asked for again, by a process of its own."""


class NameCache:
    """Names and states, read from and written to one small file per backend and profile."""

    def __init__(self, path: Path) -> None:
        """Take the cache file."""
        self.path = path
        self._read: tuple[object, dict[str, str]] = (None, {})

    @classmethod
    def of(cls, settings: Settings, *, what: str = "names") -> NameCache:
        """Return the names of the backend that the settings choose; `what` else is kept so: `domains`, `images` and `labels`, each with what it is; `rules` and `keys` by scope (`irons.client.scoped_names`)."""
        which = digest(settings.profile, settings.api_url)[:16]
        return cls(settings.cache_dir / f"{what}-{which}.json")

    def read(self) -> dict[str, str]:
        """Return what the file holds, read again where it has changed; nothing where it is missing or broken."""
        try:
            state = self.path.stat()
            stamp = (state.st_ino, state.st_mtime_ns, state.st_size)
            if stamp == self._read[0]:
                return dict(self._read[1])
            found = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return {}
        names = {str(k): str(v) for k, v in found.items()} if isinstance(found, dict) else {}
        if names == self._read[1]:
            names = self._read[1]
        self._read = (stamp, names)
        return dict(names)

    def shared(self) -> Mapping[str, str]:
        """Return the same as `read`, without a copy: the same mapping until the file changes."""
        try:
            state = self.path.stat()
        except OSError:
            return {}
        if (state.st_ino, state.st_mtime_ns, state.st_size) != self._read[0]:
            self.read()
        return self._read[1]

    def age(self) -> float:
        """Seconds since the file was written; infinity where there is none."""
        try:
            return max(0.0, time.time() - self.path.stat().st_mtime)
        except OSError:
            return float("inf")

    def claim(self, seconds: float) -> bool:
        """Take the right to refresh; false where it was taken less than `seconds` ago, by whichever process."""
        mark = self.path.with_suffix(".asked")
        try:
            if abs(time.time() - mark.stat().st_mtime) < seconds:
                return False
        except OSError:
            pass  # no one has asked yet
        try:
            make_private(mark.parent)
            mark.touch(mode=0o600)
        except OSError:
            return False
        return True

    def replace(self, names: Mapping[str, str]) -> None:
        """Write all names again; a cache that can't be written is done without."""
        try:
            write_whole(self.path, json.dumps(dict(names)))
        except OSError:
            return

    def touch(self) -> None:
        """Say that the names are still what they were; a cache that is not there is done without."""
        with suppress(OSError):
            os.utime(self.path)

    def put(self, name: str, state: str) -> None:
        """Learn one name's state."""
        names = self.read()
        if names.get(name) != state:
            self.replace({**names, name: state})

    def forget(self, name: str) -> None:
        """Forget one name."""
        names = self.read()
        if names.pop(name, None) is not None:
            self.replace(names)
