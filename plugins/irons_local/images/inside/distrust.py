"""Taking the carried certificate authorities out of an image: they belong to the machine that carried them.

Runs with the image as this process's root, in a user namespace of the sandbox's ids. What the files hold is a sandbox's word.
"""

# This process's root is the image: paths are plain text, handed to the system calls by name.
# ruff: noqa: PTH106, PTH108, PTH115
from __future__ import annotations

import contextlib
import os
import re
import stat

from irons_local.bundle import trust

STORE = "etc/ssl/certs"
BUNDLES = (
    "etc/ssl/certs/ca-certificates.crt",
    "etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "etc/ca-certificates/extracted/tls-ca-bundle.pem",
    "var/lib/ca-certificates/ca-bundle.pem",
)
_MOST = 8 << 20
_BLOCK = re.compile(rb"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n?", re.DOTALL)


def distrust() -> None:
    """Remove what the boot step `trust` laid into the image's trust store.

    Raises:
        OSError: it cannot be removed.
    """
    directory = trust.DEBIAN.lstrip("/")
    anchors = [f"{each}/{trust.ANCHOR}".lstrip("/") for each in trust.ANCHORS]
    files = [f"{directory}/{name}" for name in _names(directory)]
    carried = frozenset[bytes]().union(*map(_blocks, (*files, *anchors)))
    if carried:
        for path in BUNDLES:
            _without(path, carried)
        # What an update leaves that ended with its sandbox.
        with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
            os.unlink(trust.DRAFT.lstrip("/"))
    for name in _names(STORE):
        path = f"{STORE}/{name}"
        with contextlib.suppress(OSError):
            target = os.readlink(path)
            if target.startswith((f"/{directory}/", "irons-")):
                os.unlink(path)
    for path in files:
        os.unlink(path)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        os.rmdir(directory)
    for anchor in anchors:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            os.unlink(anchor)


def _names(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if not entry.is_dir(follow_symlinks=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _blocks(path: str) -> frozenset[bytes]:
    return frozenset(match[0].strip() for match in _BLOCK.finditer(_read(path)))


def _read(path: str) -> bytes:
    """A plain file of the image, through no link, as far as it is of a size that a trust store has."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return b""
        data = file.read(_MOST + 1)
    return data if len(data) <= _MOST else b""


def _without(path: str, carried: frozenset[bytes]) -> None:
    """Write a bundle without the carried certificates."""
    data = _read(path)
    kept = _BLOCK.sub(lambda match: b"" if match[0].strip() in carried else match[0], data)
    if kept != data:
        descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
        with os.fdopen(descriptor, "wb") as file:
            file.write(kept)
