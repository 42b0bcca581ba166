"""Which private key opens which sandbox: paths alone, remembered per profile and sandbox."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from irons.errors import ConfigError
from irons.files import make_private, write_whole

if TYPE_CHECKING:
    from irons.settings.settings import Settings


class Identities:
    """Sandbox name → path of a private key, in one owner-only file that all profiles share."""

    def __init__(self, path: Path, profile: str) -> None:
        """Take the file and the profile whose sandboxes are meant."""
        self.path = path
        self._profile = profile

    @classmethod
    def of(cls, settings: Settings) -> Identities:
        """Return those of the settings' profile."""
        return cls(settings.state_dir / "ssh" / "identities.json", settings.profile)

    def of_sandbox(self, name: str) -> Path | None:
        """Return the key's path where one is remembered and still there."""
        path = self._read().get(self._profile, {}).get(name)
        return Path(path) if path and Path(path).is_file() else None

    def remember(self, name: str, identity: Path) -> None:
        """Remember a key's path. Raises `ConfigError` where the file can't be written."""
        with self._locked():
            found = self._read()
            found.setdefault(self._profile, {})[name] = str(identity)
            self._write(found)

    def forget(self, name: str, *, unless: Callable[[], bool] = lambda: False) -> None:
        """Forget a sandbox.

        Args:
            name: Its name.
            unless: Asked while nothing else can be remembered; where it is true, nothing is forgotten.

        Raises:
            ConfigError: The file can't be written.
        """
        if name not in self._read().get(self._profile, {}):
            return
        with self._locked():
            if unless():
                return
            found = self._read()
            found.get(self._profile, {}).pop(name, None)
            self._write(found)

    def _read(self) -> dict[str, dict[str, str]]:
        try:
            found = json.loads(self.path.read_bytes())
        except (OSError, ValueError):
            return {}
        if not isinstance(found, dict):
            return {}
        return {
            str(profile): {str(name): str(path) for name, path in names.items()}
            for profile, names in found.items()
            if isinstance(names, dict)
        }

    def _write(self, found: dict[str, dict[str, str]]) -> None:
        write_whole(self.path, json.dumps(found, indent=1))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the file's lock, so that creates that run side by side all are remembered."""
        try:
            make_private(self.path.parent)
            with self.path.with_suffix(".lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield
        except OSError as error:
            raise ConfigError(f"{self.path} can't be written: {error.strerror}") from None
