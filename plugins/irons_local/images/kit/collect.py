"""The kit: an SSH server and a few programs with their own loader and libraries, taken from the base image.

It is shown read-only in every sandbox, so that nothing of the image matters to a login: neither an SSH server of its
own, nor its C library, nor whether it has a shell. `collect` runs by `linux.userns_main` in namespace B with its root
changed to the base image, executes nothing of it, and reads files of bounded size only.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterator
from typing import Any

from irons_local.bundle.oci import KIT_DIRECTORY
from irons_local.errors import EngineError
from irons_local.images.kit.elf import Elf, ElfError
from irons_local.linux.userns_main import Say

SSHD = "sshd"
TINI = "tini"
SHELL = "sh"
SESSION = "sshd-session"
AUTH = "sshd-auth"
VERSION = 3
"""Of what a kit has in it; it is counted on where programs are added."""
_LOADER = "ld"
_PROGRAMS = {
    SSHD: ("usr/sbin/sshd",),
    # Since OpenSSH 9.8 a connection has a program of its own, and since 10.0 its login another.
    SESSION: ("usr/lib/openssh/sshd-session",),
    AUTH: ("usr/lib/openssh/sshd-auth",),
    "sftp-server": ("usr/lib/openssh/sftp-server",),
    TINI: ("usr/bin/tini-static", "usr/bin/tini", "sbin/tini"),
    SHELL: ("bin/dash", "bin/sh"),
    "bash": ("bin/bash",),
    "tar": ("bin/tar",),
    "gzip": ("bin/gzip",),
    "grep": ("bin/grep",),
    "ps": ("bin/ps",),
    "kill": ("bin/kill",),
    # It tells `exec` of a death by a signal.
    "perl": ("usr/bin/perl",),
    "setpriv": ("usr/bin/setpriv", "bin/setpriv"),
}
"""Where each lies in the image; a program that is not there is left out, but for the first."""
_TOOLS = (
    "base64 basename cat chmod chown cp cut date dd df dirname du echo env expr false head id ln ls mkdir mktemp mv"
    " nproc printenv printf pwd readlink realpath rm rmdir sed sleep sort stat stty sync tail tee test timeout touch tr"
    " true uname uniq wc"
)
_LIBRARIES = ("lib", "usr/lib", "lib64", "usr/lib64")
_TRIPLETS = ("x86_64-linux-gnu", "aarch64-linux-gnu", "riscv64-linux-gnu", "powerpc64le-linux-gnu")
_FILE_AT_MOST = 64 << 20
_ALL_AT_MOST = 256 << 20


def collect(request: dict[str, Any], _say: Say) -> dict[str, Any]:
    """Put the kit into a directory, for `userns_main`.

    Args:
        request: `rootfs` (of the base image) and `kit` (an empty directory), descriptors; `more`, further programs, by the name of
            each the paths at which it may lie.

    Returns:
        `names`, the programs in it, and `size` in bytes.

    Raises:
        EngineError: the image has no SSH server to take, or one that cannot be run elsewhere.
    """
    os.fchdir(request["rootfs"])
    os.chroot(".")
    os.umask(0o022)
    try:
        kit = _Kit(request["kit"])
        names = {**_PROGRAMS, **{name: (f"bin/{name}", f"usr/bin/{name}") for name in _TOOLS.split()}}
        names |= {name: tuple(paths) for name, paths in request.get("more", {}).items()}
        found = [name for name, paths in names.items() if kit.program(name, paths)]
        if SSHD not in found:
            raise EngineError("image", "the base image has no SSH server to take for the kit")
        os.fsync(request["kit"])
    except ElfError as error:
        raise EngineError("image", f"the kit cannot be made of the base image: {error}") from error
    return {"names": found, "size": kit.size}


class _Kit:
    def __init__(self, directory: int) -> None:
        self._directory = directory
        self._there: set[str] = set()
        self.size = 0

    def program(self, name: str, paths: tuple[str, ...]) -> bool:
        """Put a program with all it needs into the kit; False where the image does not have it."""
        data = next((data for path in paths if (data := _read(path)) is not None), None)
        if data is None:
            return False
        try:
            elf = Elf.parse(data)
            changed = elf.beside(f"{KIT_DIRECTORY}/{_LOADER}")
        except ElfError as error:
            if name == SSHD:
                raise ElfError(f"{paths[0]}: {error}") from error
            # A script, or something built in another way: what can do without it does.
            return False
        self._write(name, changed)
        if elf.interpreter:
            self._loader(elf.interpreter)
        self._libraries(elf)
        return True

    def _loader(self, path: str) -> None:
        if _LOADER not in self._there:
            data = _read(path.lstrip("/"))
            if data is None:
                raise ElfError(f"there is no {path}")
            self._write(_LOADER, data)
            # The C library asks for the loader by its name, which the one that runs has already.
            self._there.add(posixpath.basename(path))

    def _libraries(self, elf: Elf) -> None:
        for name in elf.needed:
            if name in self._there:
                continue
            if "/" in name or name in (".", "..", ""):
                raise ElfError(f"a library is called {name!r}")
            data = next((data for path in _places(name) if (data := _read(path)) is not None), None)
            if data is None:
                raise ElfError(f"the library {name} is not there")
            self._write(name, data)
            self._libraries(Elf.parse(data))

    def _write(self, name: str, data: bytes) -> None:
        self.size += len(data)
        if self.size > _ALL_AT_MOST:
            raise ElfError(f"it is larger than {_ALL_AT_MOST >> 20} MiB")
        self._there.add(name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(name, flags, 0o755, dir_fd=self._directory)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


def _places(name: str) -> Iterator[str]:
    for directory in _LIBRARIES:
        for triplet in (*_TRIPLETS, ""):
            yield posixpath.join(directory, triplet, name)


def _read(path: str) -> bytes | None:
    """A file of the image; None where there is no plain file of that name."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > _FILE_AT_MOST:
            return None
        return file.read(_FILE_AT_MOST)
