"""What a root file system needs to be a sandbox: an account to log in to, and a shell, each made where there is none.

Runs with the image as this process's root directory and working directory, as the image's root, and executes
nothing of it.
"""

# This process's root is the image: paths are plain text, handed to the system calls by name.
# ruff: noqa: PTH101, PTH102, PTH104, PTH108, PTH112, PTH116, PTH118, PTH123, PTH208, PTH211
from __future__ import annotations

import contextlib
import os
import posixpath
import shlex
import shutil
import stat
from collections.abc import Callable, Mapping
from typing import Any

from irons_local.bundle import man_pages
from irons_local.bundle.image_config import EMPTY, ImageConfig
from irons_local.bundle.oci import KIT_DIRECTORY
from irons_local.errors import EngineError
from irons_local.images.inside import nested
from irons_local.images.inside.distrust import distrust
from irons_local.linux.idmap import INNER_COUNT
from irons_local.spec import USERNAME

_SSHD = ("usr/sbin/sshd", "usr/local/sbin/sshd", "usr/bin/sshd", "sbin/sshd")
_TINI = ("usr/bin/tini", "sbin/tini", "usr/local/bin/tini", "usr/bin/tini-static")
_SHELLS = ("bin/bash", "usr/bin/bash", "bin/sh")
_NO_LOGIN = ("nologin", "false", "true")
_SUDO = ("usr/bin/sudo", "bin/sudo", "usr/local/bin/sudo")
_DIRECTORIES = {
    "dev": 0o755,
    "proc": 0o555,
    "run": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "etc": 0o755,
    "home": 0o755,
}
_TEXT_AT_MOST = 4 << 20
_SKELETON_AT_MOST = 16 << 20
_FIRST_ID = 1000
_LAST_ID = 59999
_LENT_FROM = 10000
_LENT = 40000


def prepare(config: ImageConfig = EMPTY) -> dict[str, Any]:
    """Check the image and give it what it lacks.

    Args:
        config: what the image says of how its programs are run.

    Returns:
        `sshd` and `tini`, its own ("" if none), `os`, its name, and `username`: who one is in its sandboxes.

    Raises:
        EngineError: it cannot be a sandbox, and why.
        OSError: it cannot be written.
    """
    sshd = _first(_SSHD)
    for path, mode in _DIRECTORIES.items():
        _make_directory(path, mode)
    shell = _shell()
    if not os.path.lexists("root"):
        _make_directory("root", 0o700)
    if "root" not in _names("etc/passwd"):
        _append("etc/passwd", f"root:x:0:0:root:/root:{shell}", 0o644)
    if "root" not in _names("etc/group"):
        _append("etc/group", "root:x:0:", 0o644)
    if "sshd" not in _names("etc/passwd"):
        _add_account(
            "sshd", 100, 999, "/run/sshd", _first(("usr/sbin/nologin", "sbin/nologin")) or "/bin/false"
        )
    username = _login(config.user, shell)
    _search_path(config.env.get("PATH", ""))
    _default_locale()
    _give_ids()
    _allow_containers()
    _man_pages()
    _forget_identity()
    distrust()
    return {
        "sshd": sshd,
        "tini": _first(_TINI),
        "os": _os_name(),
        "username": username,
        "may_sudo": _has_sudo(),
    }


def _first(paths: tuple[str, ...]) -> str:
    """The first that is a program, as an absolute path; "" if none is."""
    for path in paths:
        with contextlib.suppress(OSError):
            found = os.stat(path)
            if stat.S_ISREG(found.st_mode) and found.st_mode & 0o111:
                return f"/{path}"
    return ""


def _make_directory(path: str, mode: int) -> None:
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        os.mkdir(path)
        os.chmod(path, mode)
        return
    if not stat.S_ISDIR(found.st_mode):
        raise EngineError("image", f"the image's /{path} is not a directory")


def _read(path: str) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return ""
    with open(descriptor, encoding="utf-8", errors="surrogateescape") as file:
        # A hole of terabytes would be read as so many zeros.
        if os.fstat(descriptor).st_size > _TEXT_AT_MOST:
            raise EngineError("image", f"the image's /{path} is larger than {_TEXT_AT_MOST >> 20} MiB")
        return file.read()


def _write(path: str, text: str, mode: int) -> None:
    """Replace a file of any kind by a plain one that root owns."""
    draft = f"{path}.irons-new"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
        os.fchmod(file.fileno(), mode)
    os.rename(draft, path)


def _append(path: str, line: str, mode: int) -> None:
    text = _read(path)
    if text and not text.endswith("\n"):
        text += "\n"
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(path)
        mode = stat.S_IMODE(found.st_mode)
        _write(path, text + line + "\n", mode)
        os.chown(path, found.st_uid, found.st_gid)
        return
    _write(path, text + line + "\n", mode)


def _fields(path: str) -> list[list[str]]:
    return [line.split(":") for line in _read(path).splitlines() if line and not line.startswith("#")]


def _names(path: str) -> set[str]:
    return {fields[0] for fields in _fields(path)}


def _shell() -> str:
    """A shell to log in to; where the image has none, `/bin/sh` leads to the one of the kit."""
    found = _first(_SHELLS)
    if found:
        return found
    if not os.path.isdir("bin"):
        _make_directory("bin", 0o755)
    with contextlib.suppress(FileNotFoundError):
        os.unlink("bin/sh")
    os.symlink(f"{KIT_DIRECTORY}/sh", "bin/sh")
    return "/bin/sh"


def _add_person(shell: str) -> None:
    home = f"home/{USERNAME}"
    number = _add_account(USERNAME, _FIRST_ID, _LAST_ID, f"/{home}", shell)
    if not os.path.lexists(home):
        if os.path.isdir("etc/skel"):
            _check_skeleton("etc/skel")
            shutil.copytree("etc/skel", home, symlinks=True)
        else:
            os.mkdir(home)
    os.chmod(home, 0o755)  # noqa: S103 (as useradd has it)
    for directory, _, names in os.walk(home):
        for name in (".", *names):
            os.chown(os.path.join(directory, name), number, number, follow_symlinks=False)


def _check_skeleton(directory: str) -> None:
    """Refuse a skeleton whose copy would be large: holes are copied as zeros."""
    size = 0
    for path, _, names in os.walk(directory):
        size += sum(os.lstat(os.path.join(path, name)).st_size for name in names)
        if size > _SKELETON_AT_MOST:
            raise EngineError(
                "image", f"the image's /{directory} is larger than {_SKELETON_AT_MOST >> 20} MiB"
            )


def _add_account(name: str, lowest: int, highest: int, home: str, shell: str) -> int:
    taken = {fields[2] for path in ("etc/passwd", "etc/group") for fields in _fields(path) if len(fields) > 2}
    number = next(value for value in range(lowest, highest + 1) if str(value) not in taken)
    _append("etc/group", f"{name}:x:{number}:", 0o644)
    _append("etc/passwd", f"{name}:x:{number}:{number}::{home}:{shell}", 0o644)
    # `*` is not a password that could be typed, yet not locked: sshd refuses the keys of a locked account.
    _append("etc/shadow", f"{name}:*:19000:0:99999:7:::", 0o640)
    return number


def _login(user: str, shell: str) -> str:
    """The name of who one is: the image's own user; else an account that may become root by sudo; else root."""
    name, _, group = user.partition(":")
    if name.isdecimal():
        name = _account_of(int(name), group, shell) if int(name) < INNER_COUNT else ""
    if name in ("", "root") or name not in _names("etc/passwd"):
        return _allowed_sudo(shell) or _opened("root", shell)
    if _has_sudo():
        _write(f"etc/sudoers.d/{USERNAME}", f"{name} ALL=(ALL:ALL) NOPASSWD: ALL\n", 0o440)
    return _opened(name, shell)


def _account_of(number: int, group: str, shell: str) -> str:
    """The name of the account with this number, which gets one where it has none, as images of one program do."""
    known = next((fields[0] for fields in _fields("etc/passwd") if fields[2:3] == [str(number)]), None)
    if known is not None:
        return known
    if USERNAME in _names("etc/passwd"):
        return ""
    # Without an entry the group is root's, as container engines have it.
    gid = group if group.isdecimal() and int(group) < INNER_COUNT else "0"
    _append("etc/passwd", f"{USERNAME}:x:{number}:{gid}::/:{shell}", 0o644)
    _append("etc/shadow", f"{USERNAME}:*:19000:0:99999:7:::", 0o640)
    return USERNAME


def _search_path(path: str) -> None:
    """Keep the image's search path in login shells, whose `/etc/profile` sets another one."""
    if path and os.path.isdir("etc/profile.d"):
        _write("etc/profile.d/irons-image.sh", f"PATH={shlex.quote(path)}\nexport PATH\n", 0o644)


def _has_sudo() -> bool:
    return bool(_first(_SUDO)) and os.path.isdir("etc/sudoers.d")


def _allowed_sudo(shell: str) -> str:
    """The name of an ordinary account that may become root by sudo; "" where the image has no sudo."""
    if not _has_sudo():
        return ""
    if USERNAME not in _names("etc/passwd"):
        _add_person(shell)
    _write(f"etc/sudoers.d/{USERNAME}", f"{USERNAME} ALL=(ALL:ALL) NOPASSWD: ALL\n", 0o440)
    return USERNAME


def _opened(name: str, shell: str) -> str:
    """The name of an account, which can be logged in to with a key from now on."""
    _set_field("etc/passwd", name, 6, lambda own: own if _logs_in(own) else shell)
    # What begins so is a locked account, which sshd lets no one in to; `*` is not a password that could be typed.
    _set_field("etc/shadow", name, 1, lambda own: "*" if own.startswith("!") else own)
    return name


def _logs_in(shell: str) -> bool:
    return bool(_first((shell.lstrip("/"),))) and posixpath.basename(shell) not in _NO_LOGIN


def _set_field(path: str, name: str, index: int, change: Callable[[str], str]) -> None:
    """Change a field of an account's line, where it is there and differs."""
    lines = _read(path).splitlines()
    for number, line in enumerate(lines):
        fields = line.split(":")
        if fields[0] != name or len(fields) <= index or change(fields[index]) == fields[index]:
            continue
        fields[index] = change(fields[index])
        lines[number] = ":".join(fields)
        found = os.lstat(path)
        _write(path, "\n".join(lines) + "\n", stat.S_IMODE(found.st_mode))
        os.chown(path, found.st_uid, found.st_gid)
        return


def _give_ids() -> None:
    """Let the person map ids of their own for containers, within those that a sandbox has (subuid(5))."""
    for path in ("etc/subuid", "etc/subgid"):
        if USERNAME not in _names(path):
            _append(path, f"{USERNAME}:{_LENT_FROM}:{_LENT}", 0o644)


def _allow_containers() -> None:
    """Configure buildah and podman for a sandbox, before or after they are installed, where the image is a Debian."""
    if not os.path.isdir("etc/dpkg"):
        return
    if not any(os.path.lexists(path) for path in nested.OWN):
        _lay(nested.CONFIGURATION)
    if not any(os.path.lexists(path) for path in nested.STORAGE):
        _lay(nested.STORAGE)
    if os.path.isdir(nested.DPKG) and os.path.isdir("usr/lib"):
        _lay(nested.HOOK)
    for path, capability in nested.LENDERS.items():
        with contextlib.suppress(OSError):
            found = os.lstat(path)
            if stat.S_ISREG(found.st_mode) and found.st_mode & stat.S_ISUID:
                os.setxattr(path, nested.CAPABILITY, capability, follow_symlinks=False)
                os.chmod(path, stat.S_IMODE(found.st_mode) & ~stat.S_ISUID)


def _lay(files: Mapping[str, nested.ImageFile]) -> None:
    for path, file in files.items():
        missing = []
        parent = posixpath.dirname(path)
        while not os.path.lexists(parent):
            missing.append(parent)
            parent = posixpath.dirname(parent)
        for directory in reversed(missing):
            _make_directory(directory, 0o755)
        _write(path, file.text, file.mode)


def _default_locale() -> None:
    """Have what starts by PAM (cron, su, sudo) use UTF-8, as sessions do, where the image names no locale itself."""
    if (
        os.path.isdir("etc/default")
        and not os.path.lexists("etc/default/locale")
        and os.path.isdir("usr/lib/locale/C.utf8")
    ):
        _write("etc/default/locale", "LANG=C.UTF-8\n", 0o644)


def _man_pages() -> None:
    """Make the directories of man pages that lean images leave out: scripts of Debian's packages put links there."""
    if os.path.isdir("etc/dpkg") and os.path.isdir("usr/share"):
        for path in ("usr/share/man", *man_pages.MAN_PAGES):
            if not os.path.lexists(path):
                os.mkdir(path)
                os.chmod(path, 0o755)  # noqa: S103 (as base-files has it)


def _forget_identity() -> None:
    """Remove what must not be the same in two sandboxes."""
    if os.path.isdir("etc/ssh"):
        for name in os.listdir("etc/ssh"):
            if name.startswith("ssh_host_"):
                os.unlink(f"etc/ssh/{name}")
    if os.path.lexists("etc/machine-id"):
        _write("etc/machine-id", "", 0o444)


def _os_name() -> str:
    for path in ("etc/os-release", "usr/lib/os-release"):
        with contextlib.suppress(OSError):
            for line in _text(path).splitlines():
                if line.startswith("PRETTY_NAME="):
                    return line.partition("=")[2].strip().strip('"')
    return "unknown"


def _text(path: str) -> str:
    """The text of a file; a link is followed within the image alone."""
    # What is not a plain file might never be read to its end.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, encoding="utf-8", errors="replace") as file:
        return file.read(65536) if stat.S_ISREG(os.fstat(descriptor).st_mode) else ""
