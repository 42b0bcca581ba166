"""The kits on this machine: one is made of each base image that is used, and shared by all sandboxes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from irons.files import write_whole
from irons_local.bundle import session
from irons_local.bundle.oci import KIT_DIRECTORY
from irons_local.errors import EngineError
from irons_local.images.kit.collect import AUTH, SESSION, SHELL, SSHD, TINI, VERSION
from irons_local.images.locks import locked
from irons_local.images.record import Image
from irons_local.linux.idmap import outer_map
from irons_local.linux.remove_tree import remove_tree
from irons_local.linux.userns_call import call
from irons_local.progress import Progress, unheard
from irons_local.times import now

_COLLECT = "irons_local.images.kit.collect:collect"
_FILE = "kit.json"
_FILES = "files"
_PREFIX = "kit_"
_DRAFT = ".kit-"
_LOCK = ".kit-lock"


@dataclass(frozen=True, slots=True)
class MadeKit:
    """A kit on the disk.

    Attributes:
        id: `kit_` and 16 hexadecimal digits.
        image: id of the base image it was made of.
        created_at: microseconds since 1970, UTC.
        names: the programs in it.
        home: its directory.
        version: that of `kit`; 1 where an irons made it that did not record one.
    """

    id: str
    image: str
    created_at: int
    names: tuple[str, ...]
    home: Path
    version: int = 1

    @property
    def files(self) -> Path:
        """The directory that sandboxes are shown."""
        return self.home / _FILES

    @property
    def is_current(self) -> bool:
        """Whether it has in it what a kit of this irons has."""
        return self.version == VERSION

    @property
    def server(self) -> tuple[str, str]:
        """Paths, in a sandbox, of its init ("" where it has none) and of its SSH server."""
        return (f"{KIT_DIRECTORY}/{TINI}" if TINI in self.names else "", f"{KIT_DIRECTORY}/{SSHD}")

    @property
    def helpers(self) -> dict[str, str]:
        """Options of its sshd_config(5): where the programs are that its SSH server starts, which it seeks elsewhere."""
        options = {"SshdSessionPath": SESSION, "SshdAuthPath": AUTH}
        return {option: f"{KIT_DIRECTORY}/{name}" for option, name in options.items() if name in self.names}

    @property
    def shell(self) -> str:
        """Path, in a sandbox, of the shell that runs our own scripts."""
        return f"{KIT_DIRECTORY}/{SHELL}" if SHELL in self.names else session.SHELL

    @classmethod
    def read(cls, home: Path) -> MadeKit | None:
        """The kit of a directory; None where there is none, or it cannot be read."""
        try:
            body = json.loads((home / _FILE).read_bytes())
            made, names = int(body["created_at"]), tuple(body["names"])
            return cls(home.name, str(body["image"]), made, names, home, int(body.get("version", 1)))
        except (OSError, ValueError, TypeError, KeyError):
            return None


class Kits:
    """The kits of one user.

    Args:
        root: the directory that holds them.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def newest(self) -> MadeKit | None:
        """The kit that was made last."""
        return max(self._all(), key=lambda kit: kit.created_at, default=None)

    def by_id(self, identifier: str) -> MadeKit | None:
        """The kit of that id; None where it is gone."""
        return MadeKit.read(self._root / identifier)

    async def ensure(self, base: Image, progress: Progress = unheard) -> MadeKit:
        """The kit of a base image, made where there is none.

        Raises:
            EngineError: it could not be made.
        """
        if (made := self._of(base)) is not None:
            return made
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        async with locked(self._root / _LOCK):
            if (made := self._of(base)) is not None:
                return made
            progress("making the SSH server for sandboxes, once", None)
            await self._sweep()
            return await self._make(base)

    async def remove_unused(self, used: frozenset[str]) -> None:
        """Remove what was interrupted, and all but the newest and those of the ids `used`."""
        if not self._root.is_dir():
            return
        async with locked(self._root / _LOCK):
            newest = self.newest()
            for kit in self._all():
                if kit != newest and kit.id not in used:
                    kit.home.rename(self._root / f"{_DRAFT}{secrets.token_hex(8)}")
            await self._sweep()

    def _of(self, base: Image) -> MadeKit | None:
        return next((kit for kit in self._all() if kit.image == base.id and kit.is_current), None)

    async def _make(self, base: Image) -> MadeKit:
        draft = self._root / f"{_DRAFT}{secrets.token_hex(8)}"
        try:
            (draft / _FILES).mkdir(parents=True, mode=0o755)
            draft.chmod(0o700)
            found = await self._collect(base, draft / _FILES)
            created_at = now()
            names = tuple(found["names"])
            body = {"image": base.id, "created_at": created_at, "names": names, "version": VERSION}
            write_whole(draft / _FILE, json.dumps(body), durable=True, parents=False)
            home = self._root / f"{_PREFIX}{secrets.token_hex(8)}"
            draft.rename(home)
            return MadeKit(home.name, base.id, created_at, names, home, VERSION)
        except OSError as error:
            raise EngineError("failed", f"the kit could not be written: {error.strerror}") from error
        finally:
            await asyncio.shield(remove_tree(draft))

    async def _collect(self, base: Image, into: Path) -> dict[str, list[str]]:
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        with contextlib.ExitStack() as stack:
            rootfs, kit = os.open(base.rootfs, flags), os.open(into, flags)
            stack.callback(os.close, rootfs)
            stack.callback(os.close, kit)
            # Every user inside runs its programs, independent of the umask here.
            os.fchmod(kit, 0o755)
            if os.geteuid() == 0:
                idmap = outer_map()
                os.fchown(kit, idmap.host_uid(1), idmap.host_gid(1))
            request = {"rootfs": rootfs, "kit": kit, "give": [kit]}
            found: dict[str, list[str]] = await call("b", _COLLECT, request, fds=(rootfs, kit))
            return found

    async def _sweep(self) -> None:
        for entry in self._entries():
            if entry.startswith(_DRAFT) and entry != _LOCK:
                await remove_tree(self._root / entry)

    def _all(self) -> list[MadeKit]:
        found = (MadeKit.read(self._root / entry) for entry in self._entries() if entry.startswith(_PREFIX))
        return [kit for kit in found if kit is not None]

    def _entries(self) -> list[str]:
        try:
            return sorted(path.name for path in self._root.iterdir())
        except FileNotFoundError:
            return []
