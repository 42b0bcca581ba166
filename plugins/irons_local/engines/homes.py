"""The directories of an engine's sandboxes: made whole or not at all, and removed also where a removal was interrupted.

Below one root, `ID` is a sandbox, `.new-ID-…` one that is being made, `.gone-ID` one that is being removed.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

from irons_local.bundle import session, sshd
from irons_local.bundle.machine import Machine
from irons_local.errors import EngineError
from irons_local.linux.remove_tree import remove_tree
from irons_local.spec import Spec

_BUSY_WITHIN = 5.0

SETTINGS = "settings"
"""In a sandbox's directory: its host key, the authorized keys and its variables."""

_NEW, _GONE = ".new-", ".gone-"
_FIRST, _DIGITS = "sb_", 16
"""An id is these letters, and so many more."""

_log = logging.getLogger(__name__)


class Homes:
    """The directories below one root.

    Args:
        root: where they are; made with the first of them.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def entries(self) -> list[Path]:
        """Everything that is there, by name."""
        try:
            return sorted(self._root.iterdir())
        except FileNotFoundError:
            return []

    def of(self, sandbox: str) -> Path:
        """The directory of a sandbox.

        Raises:
            EngineError: there is none.
        """
        home = self.at(sandbox)
        if not home.is_dir():
            raise EngineError("absent", f"there is no sandbox {sandbox}")
        return home

    def at(self, sandbox: str) -> Path:
        """Where the directory of a sandbox is, or would be."""
        return self._root / sandbox

    def check_free(self, sandbox: str) -> None:
        """Refuse to make a sandbox that there is.

        Raises:
            EngineError: there is a directory of it already.
        """
        if self.at(sandbox).is_dir():
            raise EngineError("exists", f"there is a sandbox {sandbox} already")

    @asynccontextmanager
    async def draft(
        self, sandbox: str, undo: Callable[[], Awaitable[None]] | None = None
    ) -> AsyncIterator[Path]:
        """Give an empty directory, which becomes the sandbox's at the end, or is removed where anything fails.

        Args:
            sandbox: its id.
            undo: removes what was made elsewhere, before the directory goes. Where it fails the directory stays, as what is left.

        Raises:
            EngineError: it can't be written.
        """
        # Never the same twice: what a killed process had started may still write into that of its own.
        draft = self._root / f"{_NEW}{sandbox}-{secrets.token_hex(4)}"
        try:
            draft.mkdir(parents=True, mode=0o700)
            yield draft
            draft.rename(self.at(sandbox))
        except BaseException as error:
            await asyncio.shield(_discard(draft, undo))
            if isinstance(error, OSError):
                raise EngineError("failed", f"the sandbox's directory: {error.strerror}") from error
            raise

    async def remove(self, sandbox: str, halt: Callable[[Path], Awaitable[None]]) -> None:
        """Remove all that is there of a sandbox.

        Args:
            sandbox: its id.
            halt: ends it first, with its directory.
        """
        home, gone = self.at(sandbox), self._root / f"{_GONE}{sandbox}"
        if home.is_dir():
            async with reserved(home):
                await halt(home)
                home.rename(gone)
        for entry in self.entries():
            if entry.name.startswith(f"{_NEW}{sandbox}-"):
                await remove_tree(entry)
        await remove_tree(gone)


def reserved(home: Path) -> AbstractAsyncContextManager[int]:
    """Keep others from a sandbox, once they are done with it within a moment; see `Machine.held`."""
    return Machine.held(home, _BUSY_WITHIN)


def is_unfinished(home: Path) -> bool:
    """Tell whether a directory is one that was being made or removed."""
    return home.name.startswith((_NEW, _GONE))


def sandbox_of(home: Path) -> str:
    """The id of the sandbox whose directory, whole or not, this is."""
    return _FIRST + home.name.partition(_FIRST)[2][:_DIGITS]


async def _discard(draft: Path, undo: Callable[[], Awaitable[None]] | None) -> None:
    if undo is not None:
        try:
            await undo()
        except EngineError as error:
            _log.warning("%s stays, to be finished later: %s", draft.name, error)
            return
    await remove_tree(draft)


async def lay_settings(draft: Path, spec: Spec, authorized: str) -> str:
    """Write a new sandbox's settings, and return its public host key.

    Args:
        draft: its directory.
        spec: what it is to be.
        authorized: text of the authorized keys.
    """
    settings = draft / SETTINGS
    settings.mkdir(mode=0o700)
    host_key = await sshd.make_host_key(settings, spec.name)
    (settings / sshd.AUTHORIZED).write_text(authorized, encoding="utf-8")
    if spec.environment:
        private = settings / session.VARIABLES
        private.touch(mode=0o600)
        private.write_text(session.exported(spec.environment), encoding="utf-8")
    return host_key


def settings_of(home: Path) -> dict[str, str]:
    """The text of each file of a sandbox's settings, by name."""
    return {path.name: path.read_text(encoding="utf-8") for path in (home / SETTINGS).iterdir()}
