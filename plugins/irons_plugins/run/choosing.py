"""Which files of a directory here are sent to a sandbox (`--with`): never a home, and what git tracks or would add."""

from __future__ import annotations

import contextlib
import os
import pwd
import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from irons.errors import IronsError, UsageError
from irons.record import NamedTuple
from irons.text import clean

_DEEPEST = 32
"""Repositories within repositories."""


class Chosen(NamedTuple):
    """What is sent.

    Attributes:
        root: the directory, with no link in its path.
        names: paths below it, in order: files and links.
        size: bytes of the files.
    """

    root: Path
    names: tuple[bytes, ...]
    size: int


def chosen(directory: str, *, everything: bool, home: Path, guarded: Iterable[Path]) -> Chosen:
    """Choose what of a directory is sent.

    Args:
        directory: what the caller named.
        everything: send all of it, and not what git tracks or would add.
        home: the caller's home directory.
        guarded: directories that no sandbox gets to see; one that contains any of them is not sent either.

    Raises:
        UsageError: it is not a directory, it is guarded, or git does not know it.
        IronsError: git is not installed.
    """
    try:
        root = Path(directory).resolve(strict=True)
        if not root.is_dir():
            raise UsageError(f"--with takes a directory, and {directory!r} is not one")
    except OSError as error:
        raise UsageError(f"--with {directory!r}: {error.strerror}") from None
    _check(root, directory, home, guarded)
    return _measured(root, _walked(root, b"") if everything else _listed(root, b"", 0))


def whole(path: Path) -> Chosen:
    """Choose a file, or all files and links below a directory; names begin with its own name. Links are sent as links.

    Raises:
        OSError: It is not there, or can't be read.
    """
    real = path.resolve(strict=True)
    name = os.fsencode(real.name)
    if not real.is_dir():
        return _measured(real.parent, (name,))
    return _measured(real.parent, _walked(real.parent, name + b"/"))


def _measured(root: Path, found: Iterable[bytes]) -> Chosen:
    names, size = [], 0
    for name in found:
        try:
            state = os.lstat(os.path.join(os.fsencode(root), name))  # noqa: PTH118 - names are bytes
        except (FileNotFoundError, NotADirectoryError):
            continue
        if stat.S_ISREG(state.st_mode):
            size += state.st_size
        elif not stat.S_ISLNK(state.st_mode):
            continue
        names.append(name)
    return Chosen(root, tuple(sorted(names)), size)


def _check(root: Path, directory: str, home: Path, guarded: Iterable[Path]) -> None:
    """Refuse `/`, a home directory, and what contains or lies in a guarded directory, by any path or mount."""
    homes = [home]
    with contextlib.suppress(KeyError):
        homes.append(Path(pwd.getpwuid(os.geteuid()).pw_dir))
    if root == Path("/") or any(_same(root, each) for each in homes):
        raise UsageError(
            f"--with {directory}: {root} is not sent whole", hint="name the directory of the project"
        )
    for each in (*guarded, *homes):
        real = each.resolve()
        if any(_same(root, one) for one in (real, *real.parents)):
            raise UsageError(
                f"--with {directory}: it contains {each}, which no sandbox gets",
                hint="name the directory of the project",
            )
    for each in guarded:
        if any(_same(each, one) for one in root.parents):
            raise UsageError(f"--with {directory}: it lies in {each}, which no sandbox gets")


def _same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return one == other


def _walked(root: Path, below: bytes) -> Iterator[bytes]:
    """Every file and link below a directory; no link is followed."""
    for entry in os.scandir(os.path.join(os.fsencode(root), below)):  # noqa: PTH118 - names are bytes
        name = below + entry.name
        if entry.is_dir(follow_symlinks=False):
            yield from _walked(root, name + b"/")
        else:
            yield name


def _listed(root: Path, below: bytes, depth: int) -> Iterator[bytes]:
    """What git tracks below a directory, or would add; of a repository within it, what that one does."""
    directory = os.path.join(os.fsencode(root), below)  # noqa: PTH118 - names are bytes
    words = (
        *("git", "-c", "core.fsmonitor=false", "-c", "core.quotePath=false", "ls-files", "-z"),
        *("--cached", "--others", "--exclude-standard", "--deduplicate"),
    )
    env = {name: value for name, value in os.environ.items() if name not in _LED_ASTRAY}
    try:
        done = subprocess.run(
            words,
            cwd=directory,
            env={**env, "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
    except FileNotFoundError:
        raise IronsError("git is not installed", hint="--with-all sends everything, without git") from None
    if done.returncode:
        told = clean(done.stderr.decode(errors="replace").strip().partition("\n")[0], limit=200)
        raise UsageError(
            f"git cannot say what belongs to {os.fsdecode(directory)}: {told}",
            hint="--with-all sends everything in it",
        )
    for name in filter(None, done.stdout.split(b"\0")):
        path = below + name.rstrip(b"/")
        if not _is_directory(os.path.join(os.fsencode(root), path)):  # noqa: PTH118
            yield path
        elif depth < _DEEPEST and os.path.lexists(os.path.join(os.fsencode(root), path, b".git")):  # noqa: PTH118
            yield from _listed(root, path + b"/", depth + 1)


_LED_ASTRAY = frozenset(("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_COMMON_DIR", "GIT_PREFIX"))
"""Variables by which git would look at another repository: set in hooks, for one."""


def _is_directory(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False
