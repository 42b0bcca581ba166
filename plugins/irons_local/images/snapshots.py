"""Snapshots as they are recorded: which image and which layers a sandbox's files were at one moment.

On disk, in `snapshots/sn_…`: `snapshot.json` alone; the files are in layers, which live as long as it names them. A
record is made in `.new-…` and put into its place by one rename, and `Snapshots.sweep` removes what was interrupted.
"""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

from irons.files import write_whole
from irons_local.errors import EngineError
from irons_local.linux.remove_tree import remove_tree

FILE = "snapshot.json"
_DRAFT = ".new-"
_GONE = ".gone-"
_ID = "sn_"
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One snapshot as its record has it.

    Attributes:
        id: `sn_` and 16 hexadecimal digits.
        name: what people call it; "" for one that only a fork uses.
        sandbox: id of the sandbox.
        image: id of the image that the sandbox is based on.
        image_name: what that image was called then.
        layers: ids of the layers over that, topmost first.
        redirects: see `Machine`.
        laid: the files of a new machine were among its own already.
        user: who one is in it, for people.
        keys: how many public keys its layers have, where its SSH server reads them too; not known of a virtual machine.
        disk: bytes of the disk of a virtual machine; 0 of another sandbox.
    """

    id: str
    name: str
    sandbox: str
    image: str
    image_name: str
    layers: tuple[str, ...] = ()
    redirects: bool = False
    laid: bool = True
    user: str = ""
    keys: int = 0
    disk: int = 0

    @classmethod
    def read(cls, home: Path) -> Self:
        """Return the snapshot of a directory.

        Raises:
            EngineError: the record is missing, damaged, or of a newer irons.
        """
        try:
            body = json.loads((home / FILE).read_bytes())
            if body["version"] > _VERSION:
                raise EngineError(
                    "state",
                    f"a newer irons made the snapshot {body.get('name') or home.name}",
                    "install the newer irons again to use it",
                )
            known = {field.name: body[field.name] for field in fields(cls) if field.name in body}
            return cls(**{**known, "layers": tuple(known["layers"])})
        except FileNotFoundError as error:
            raise EngineError("absent", f"the record of the snapshot {home.name} is gone") from error
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise EngineError(
                "state", f"the record of the snapshot {home.name} is damaged", "remove it"
            ) from error

    def write(self, home: Path) -> None:
        """Write the record into a directory, whole or not at all, also after a power loss."""
        body = {"version": _VERSION, **asdict(self)}
        write_whole(home / FILE, json.dumps(body), durable=True, parents=False)


class Snapshots:
    """The snapshots of one user.

    Args:
        root: their directory.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    @classmethod
    def beside(cls, images: Path) -> Self:
        """Return the snapshots that belong to a directory of images."""
        return cls(images.with_name("snapshots"))

    def home(self, snapshot: str) -> Path:
        """Return the directory of a snapshot."""
        return self._root / snapshot

    def homes(self) -> Iterator[Path]:
        """Yield the directory of each snapshot."""
        for entry in self._entries():
            if entry.startswith(_ID):
                yield self._root / entry

    def read(self, snapshot: str) -> Snapshot:
        """Return a snapshot by its id; raises like `Snapshot.read`."""
        return Snapshot.read(self.home(snapshot))

    def using(self, image: str) -> list[str]:
        """Return the names of the snapshots that are based on an image."""
        found: list[str] = []
        for home in self.homes():
            with contextlib.suppress(EngineError):
                known = Snapshot.read(home)
                if known.image == image:
                    found.append(known.name or known.id)
        return found

    def begin(self, snapshot: Snapshot) -> Path:
        """Write a record where nothing counts it yet.

        Returns:
            The directory that `finish` puts into its place.

        Raises:
            OSError: it cannot be written.
        """
        self._root.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = self._root / f"{_DRAFT}{secrets.token_hex(8)}"
        draft.mkdir(mode=0o700)
        snapshot.write(draft)
        return draft

    def finish(self, draft: Path, snapshot: str) -> None:
        """Put a record into its place: from then on the snapshot is there."""
        draft.rename(self.home(snapshot))

    async def remove(self, snapshot: str) -> None:
        """Remove a record; one that is gone already is passed over. Its layers go with the next sweep.

        Raises:
            OSError: it cannot be removed.
        """
        gone = self._root / f"{_GONE}{snapshot}"
        with contextlib.suppress(FileNotFoundError):
            self.home(snapshot).rename(gone)
        await remove_tree(gone)

    async def sweep(self) -> None:
        """Remove what was interrupted; no one may make a snapshot at the same time.

        Raises:
            OSError: something could not be removed.
        """
        for entry in self._entries():
            if entry.startswith((_DRAFT, _GONE)):
                await remove_tree(self._root / entry)

    def _entries(self) -> list[str]:
        try:
            return sorted(path.name for path in self._root.iterdir())
        except FileNotFoundError:
            return []
