"""An image as it is recorded, in the directory that holds it."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from irons.files import write_whole
from irons_local.bundle.image_config import EMPTY, ImageConfig
from irons_local.errors import EngineError
from irons_local.images.sources.reference import Reference
from irons_local.spec import USERNAME
from irons_local.times import now

ROOTFS = "rootfs"
_FILE = "image.json"
_NAME_AT_MOST = 64
_VERSION, _LAYERED = 3, 2
"""Of a record that an irons without disks, or without layers, must refuse. One that it can read has no number, and no key that is not needed."""


@dataclass(frozen=True, slots=True)
class Image:
    """One image.

    Attributes:
        id: `img_` and 16 hexadecimal digits.
        name: what people call it.
        created_at: microseconds since 1970, UTC.
        source: where it came from, for people.
        os: its own name for itself.
        size: bytes of its files.
        sshd: path of its own SSH server; "" where it has none.
        tini: path of its init; "" where it has none.
        home: its directory.
        base: id of the image whose `rootfs` it uses; "" where that is its own.
        layers: ids of the layers over that, topmost first.
        redirects: these say of directories what they were called below, as only the machine's root can read it.
        username: who one is in its sandboxes.
        may_sudo: whether that one may become root by sudo.
        config: how its programs are run.
        digest: `sha256:…` of the manifest it was pulled by; "" where it came from elsewhere.
        disk: bytes of the disk of a virtual machine, where the layers are what it has beyond that of the image `base`; 0 of an image of files.
    """

    id: str
    name: str
    created_at: int
    source: str
    os: str
    size: int
    sshd: str
    tini: str
    home: Path
    base: str = ""
    layers: tuple[str, ...] = ()
    username: str = USERNAME
    redirects: bool = False
    may_sudo: bool = True
    digest: str = ""
    disk: int = 0
    config: ImageConfig = EMPTY

    @property
    def rootfs(self) -> Path:
        """The directory that holds its files."""
        return self.home / ROOTFS

    @property
    def kind(self) -> str:
        """What it consists of, for people."""
        return "disk" if self.disk else "files"

    @property
    def user(self) -> str:
        """Who one is in its sandboxes, for people."""
        if self.username == "root":
            return "root, inside"
        return f"{self.username}, root by sudo" if self.may_sudo else self.username

    @property
    def lasting(self) -> dict[str, Any]:
        """What an image that is saved from its sandboxes has in common with it, as `of` takes it."""
        return {"username": self.username, "may_sudo": self.may_sudo, "config": asdict(self.config)}

    @property
    def is_base(self) -> bool:
        """True where no sandbox had a hand in it, so that its programs may serve other images."""
        return bool(self.sshd) and not self.layers and not self.source.startswith("saved from")

    @property
    def is_built(self) -> bool:
        """True where it was built here from packages."""
        return self.source.startswith("built from")

    @classmethod
    def read(cls, home: Path) -> Self | None:
        """The image of a directory; None where there is none, it cannot be read, or a newer irons made it."""
        try:
            body = json.loads((home / _FILE).read_bytes())
            if body.pop("version", 1) > _VERSION:
                return None
            # What a newer irons says without a version of its own may be left unread.
            known = {field.name: body[field.name] for field in fields(cls) if field.name in body}
            config = ImageConfig.from_record(body.get("config", {"env": {}}))
            return cls(**{**known, "layers": tuple(body.get("layers", ())), "home": home, "config": config})
        except (OSError, ValueError, TypeError, AttributeError):
            return None

    @staticmethod
    def name_of_newer(home: Path) -> str:
        """What an image is called that a newer irons made; "" where this one can read it, or no one can."""
        try:
            body = json.loads((home / _FILE).read_bytes())
            return str(body["name"]) if body.get("version", 1) > _VERSION else ""
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return ""

    @staticmethod
    def names(home: Path) -> set[str]:
        """The ids of the layers and the image that a record of any version names.

        Raises:
            OSError, ValueError, TypeError, AttributeError: it cannot be read.
        """
        body = json.loads((home / _FILE).read_bytes())
        return {body.get("base", ""), *body.get("layers", ())}

    @classmethod
    def put(cls, draft: Path, root: Path, name: str, source: str, found: dict[str, Any]) -> Self:
        """Write the record into a finished draft, and put the draft into its place with one rename.

        Args:
            draft: the directory that was made.
            root: the directory of the images.
            name: what to call it.
            source: where it came from, for people.
            found: what unpacking found, by the names of the attributes.
        """
        image = cls.of(root, name, source, found)
        image.write(draft)
        image.finish(draft)
        return image

    def begin(self, draft: Path) -> None:
        """Make a draft that holds nothing but the record."""
        draft.mkdir(mode=0o700)
        self.write(draft)

    def finish(self, draft: Path) -> None:
        """Put a draft, its record in it, into its place."""
        draft.rename(self.home)

    @classmethod
    def of(cls, root: Path, name: str, source: str, found: dict[str, Any]) -> Self:
        """A new image that is not on the disk yet; the arguments are those of `put`."""
        identifier = f"img_{secrets.token_hex(8)}"
        config = ImageConfig.from_record(found.pop("config", {"env": {}}))
        return cls(identifier, name, now(), source, home=root / identifier, config=config, **found)

    def write(self, home: Path) -> None:
        """Write the record into a directory, whole or not at all."""
        needed = {field.name for field in fields(self) if getattr(self, field.name) != field.default} - {
            "home"
        }
        body = {key: value for key, value in asdict(self).items() if key in needed}
        if self.disk or self.layers:
            body["version"] = _VERSION if self.disk else _LAYERED
        write_whole(home / _FILE, json.dumps(body), durable=True, parents=False)


def check_name(name: str) -> None:
    """Refuse what is not a name for an image, nor a reference to one at a registry.

    Raises:
        EngineError: it is none; with what one is.
    """
    where = Reference.parse(name)
    if where is not None and not where.is_plain:
        return
    plain = name.replace("-", "").replace(".", "").replace("_", "")
    if not plain.isascii() or not plain.isalnum() or name[0] in "-._" or len(name) > _NAME_AT_MOST:
        allowed = f"letters, digits, - . _ and at most {_NAME_AT_MOST} of them"
        raise EngineError("input", f"{name!r} is not a name for an image: {allowed}")
