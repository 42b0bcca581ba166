"""Who a member is, on its disk: its certificate, its server, and what it last heard of it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any, NamedTuple

from irons.files import make_private, write_whole
from irons_local.fleet.token import split_address

_WHO = "identity"
"""A link to the directory that has it."""


class IdentityError(Exception):
    """This machine has not joined a fleet, or what it keeps of that is damaged."""


class Identity(NamedTuple):
    """What a member joined with.

    Attributes:
        directory: where it is kept.
        name: the member's.
        host: the server's.
        port: where it listens for members.
    """

    directory: Path
    name: str
    host: str
    port: int

    @property
    def ca(self) -> Path:
        """The authority that the server's certificate is of."""
        return self.directory / "ca.pem"

    @property
    def certificate(self) -> Path:
        """The member's certificate."""
        return self.directory / "member.pem"

    @property
    def key(self) -> Path:
        """Its private key."""
        return self.directory / "member.key"


def read_identity(home: Path) -> Identity:
    """Read who this member is.

    Args:
        home: the agent's directory.

    Raises:
        IdentityError: it is not a member.
    """
    directory = home / _WHO
    try:
        found = json.loads((directory / "server.json").read_text())
        host, port = split_address(found["address"])
        return Identity(directory, str(found["name"]), host, port)
    except FileNotFoundError:
        raise IdentityError("this machine has not joined a fleet; run `irons member join`") from None
    except Exception as error:
        raise IdentityError(f"{directory} cannot be read ({error}); join again") from error


def write_identity(home: Path, name: str, address: str, *, ca: str, certificate: str, key: str) -> None:
    """Keep who this member is from now on, whole or not at all.

    Raises:
        OSError: it cannot be written; who it was before is still there.
    """
    make_private(home)
    fresh = home / f"{_WHO}-{os.urandom(6).hex()}"
    link = home / f".{fresh.name}"
    try:
        for file, text in (
            ("ca.pem", ca),
            ("member.pem", certificate),
            ("member.key", key),
            ("server.json", json.dumps({"name": name, "address": address})),
        ):
            write_whole(fresh / file, text, durable=True)
        link.symlink_to(fresh.name)
        # At once: no one, and no power cut, finds neither.
        link.replace(home / _WHO)
    except BaseException:
        link.unlink(missing_ok=True)
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    names = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(names)
    finally:
        os.close(names)
    for left in home.glob(f"{_WHO}-*"):
        if left != fresh:
            shutil.rmtree(left, ignore_errors=True)


def read_state(path: Path) -> dict[str, Any]:
    """An object that was kept in a file; an empty one where there is none, or it is damaged."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
