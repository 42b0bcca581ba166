"""Merging the files of several layers into one directory, which shows what they show over one another. Runs in namespace B.

Files are linked and not copied: a layer never changes, so one inode serves both, and nothing that a file holds can be lost.
A directory gets the attributes of the topmost one. It hides what is below all of these layers where one of them does, and says
what it is called there where that is another name.

What a sandbox controls: every name, depth, kind, mode and attribute in the layers but for the marks of the overlay, and nothing
while this runs. Every step is by descriptor and through no link, with one descriptor for each layer however deep it goes.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Any, NamedTuple

from irons_local.images.inside.pairs import DIRECTORY, copy_attributes
from irons_local.linux import syscalls
from irons_local.linux.userns_main import Say

_NICE = 10
_OPAQUE = "opaque"
_OF_USER = syscalls.OPAQUE.removesuffix(_OPAQUE)
_OF_ROOT = syscalls.OPAQUE_OF_ROOT.removesuffix(_OPAQUE)
_REDIRECT = "redirect"
_HIDES = b"y"


def stack(request: dict[str, Any], _say: Say) -> dict[str, Any]:
    """Merge layers, for `userns_main`, giving way to others who need the processor.

    Args:
        request: `count` (how many layers there are), under `0`, `1` … a descriptor of each, topmost first, and `target` (that of
            an empty directory).

    Raises:
        OSError: something cannot be read or made.
    """
    os.nice(_NICE)
    trees = [request[str(number)] for number in range(request["count"])]
    stacked(trees, request["target"], redirects=False)
    return {}


def stacked(trees: Sequence[int], target: int, *, redirects: bool) -> None:
    """Merge layers into an empty directory.

    Args:
        trees: descriptors of the layers, topmost first.
        target: that of the directory.
        redirects: they are mounted as the machine's root does, whose marks only it can read and write.

    Raises:
        OSError: something cannot be read or made.
    """
    work = _Stack(trees, target, _OF_ROOT if redirects else _OF_USER)
    try:
        work.run()
    finally:
        work.close()


class _Path:
    """A path from the top of a layer down; one and the same as another only if it is that object."""

    __slots__ = ("above", "name")

    def __init__(self, above: _Path | None, name: str) -> None:
        self.above = above
        self.name = name

    @classmethod
    def of(cls, names: Sequence[str]) -> _Path:
        """The path of some names, of which there is at least one."""
        path = cls(None, names[0])
        for name in names[1:]:
            path = cls(path, name)
        return path


def _names(path: _Path | None) -> list[str]:
    names: list[str] = []
    while path is not None:
        names.append(path.name)
        path = path.above
    return names[::-1]


class _Place(NamedTuple):
    """Where a directory is in a layer; None is its top."""

    layer: int
    path: _Path | None


class _Found(NamedTuple):
    """A directory that several layers have together.

    Attributes:
        places: where it is in those that have it, topmost first.
        below: its path in the layers below all of these, where it is not hidden there.
        is_hidden: whether it hides what is below all of these, or something above it does.
        mark: what the merged one says of that, by the name of the mark; nothing where its name there is its own.
    """

    places: Sequence[_Place]
    below: _Path | None
    is_hidden: bool
    mark: tuple[str, bytes] | None


class _Layer:
    """A layer, and the directory in it that is looked at.

    Args:
        tree: descriptor of its top.
    """

    def __init__(self, tree: int) -> None:
        self.top = tree
        self.here = os.dup(tree)
        self._path: _Path | None = None

    def go(self, path: _Path | None) -> None:
        """Look at another directory: by one step where it is right above or below, else from the top."""
        if path is self._path:
            return
        if path is not None and path.above is self._path:
            self.here = _moved(self.here, path.name)
        elif self._path is not None and self._path.above is path:
            self.here = _moved(self.here, "..")
        else:
            os.close(self.here)
            self.here = os.dup(self.top)
            for name in _names(path):
                self.here = _moved(self.here, name)
        self._path = path

    def close(self) -> None:
        """Close the descriptor of the directory."""
        os.close(self.here)


class _Stack:
    def __init__(self, trees: Sequence[int], target: int, marks: str) -> None:
        self._opaque, self._redirect = f"{marks}{_OPAQUE}", f"{marks}{_REDIRECT}"
        self._layers = [_Layer(tree) for tree in trees]
        self._target = os.dup(target)

    def close(self) -> None:
        for layer in self._layers:
            layer.close()
        os.close(self._target)

    def run(self) -> None:
        top = _Found([_Place(layer, None) for layer in range(len(self._layers))], None, False, None)
        frames = [(top, self._entered(top))]
        while frames:
            found, inner = frames[-1]
            if inner:
                name, directory = inner.pop()
                os.mkdir(name, 0o700, dir_fd=self._target)
                self._target = _moved(self._target, name)
                frames.append((directory, self._entered(directory)))
            else:
                frames.pop()
                self._left(found)
                if frames:
                    self._target = _moved(self._target, "..")

    def _entered(self, found: _Found) -> list[tuple[str, _Found]]:
        """Link what lies in a directory but for the directories in it, which are given."""
        inner: list[tuple[str, _Found]] = []
        names: dict[str, tuple[int, bool]] = {}
        self._go(found)
        for place in found.places:
            with os.scandir(self._layers[place.layer].here) as entries:
                for entry in entries:
                    names.setdefault(entry.name, (place.layer, entry.is_dir(follow_symlinks=False)))
        for name, (layer, is_directory) in names.items():
            if is_directory:
                inner.append((name, self._found(found, name)))
            elif not found.is_hidden or not _is_whiteout(self._layers[layer].here, name):
                # A whiteout where it may hide something below all of these layers: elsewhere the kernel lists its name.
                os.link(
                    name,
                    name,
                    src_dir_fd=self._layers[layer].here,
                    dst_dir_fd=self._target,
                    follow_symlinks=False,
                )
        return inner

    def _go(self, found: _Found) -> None:
        for place in found.places:
            self._layers[place.layer].go(place.path)

    def _found(self, inside: _Found, name: str) -> _Found:
        """A directory in one at which the layers are, as the kernel seeks it (fs/overlayfs/namei.c, `ovl_lookup`).

        Something else of its name, a whiteout or a mark ends what it is merged with. A mark with another name is followed in the
        layers below the one that has it: beside it, or from the top where it is a path.
        """
        places: list[_Place] = []
        now = name
        for layer, path in inside.places:
            here = self._layers[layer].here
            is_directory = _is_directory(here, now)
            if is_directory is None:
                continue
            if not is_directory:
                return self._hiding(inside, places)
            places.append(_Place(layer, _Path(path, now)))
            hides, renamed = self._marks_of(here, now)
            if hides:
                return self._hiding(inside, places)
            if renamed[:1] == ["/"]:
                return self._by_path(inside, name, places, renamed[1:])
            now = renamed[0] if renamed else now
        if inside.is_hidden:
            return _Found(places, None, True, None)
        mark = None if now == name else (self._redirect, os.fsencode(now))
        return _Found(places, _Path(inside.below, now), False, mark)

    def _by_path(self, inside: _Found, name: str, places: list[_Place], path: list[str]) -> _Found:
        """Seek a directory from the top of each layer below those in which it was found."""
        for number in range(places[-1].layer + 1, len(self._layers)):
            there, path, ends = self._sought(self._layers[number].top, path)
            if there is not None:
                places.append(_Place(number, there))
            if ends:
                return self._hiding(inside, places)
        below = _Path.of(path)
        if not inside.is_hidden and path == [*_names(inside.below), path[-1]]:
            # Beside it, which is said by the name alone, if at all.
            mark = None if path[-1] == name else (self._redirect, os.fsencode(path[-1]))
            return _Found(places, below, False, mark)
        return _Found(places, below, False, (self._redirect, os.fsencode("/" + "/".join(path))))

    def _sought(self, top: int, path: list[str]) -> tuple[_Path | None, list[str], bool]:
        """Seek a path in a layer.

        Returns:
            The path, where it is there; what it is called in the layers below; and whether these are hidden.
        """
        here, ends = os.dup(top), False
        called: list[str] = []
        try:
            for number, name in enumerate(path):
                is_directory = _is_directory(here, name)
                if is_directory is None:
                    return None, [*called, *path[number:]], ends
                if not is_directory:
                    return None, path, True
                hides, renamed = self._marks_of(here, name)
                ends = ends or hides
                if renamed[:1] == ["/"]:
                    # It is sought there whatever is hidden above it.
                    called, ends = renamed[1:], False
                else:
                    called = [*called, *(renamed or [name])]
                here = _moved(here, name)
        finally:
            os.close(here)
        return _Path.of(path), called, ends

    def _hiding(self, inside: _Found, places: Sequence[_Place]) -> _Found:
        return _Found(places, None, True, None if inside.is_hidden else (self._opaque, _HIDES))

    def _marks_of(self, directory: int, name: str) -> tuple[bool, list[str]]:
        """Whether a directory hides what is below it, and what it is called there: nothing, a name, or "/" and the names of a path."""
        opened = os.open(name, DIRECTORY, dir_fd=directory)
        try:
            there = os.listxattr(opened)
            if self._opaque in there:
                mark = os.getxattr(opened, self._opaque)
                if mark != _HIDES:
                    raise _unknown(mark)
                return True, []
            if self._redirect not in there:
                return False, []
            mark = os.getxattr(opened, self._redirect)
        finally:
            os.close(opened)
        first, *names = os.fsdecode(mark).split("/")
        if any(each in ("", ".", "..") for each in (names or [first])) or (first and names):
            raise _unknown(mark)
        return False, ["/", *names] if names else [first]

    def _left(self, found: _Found) -> None:
        """Give a directory the attributes of the topmost one, and say what it is called below, or that it hides what is there."""
        self._go(found)
        top = self._layers[found.places[0].layer].here
        copy_attributes(top, self._target, os.fstat(top))
        for mark in {self._opaque, self._redirect} & set(os.listxattr(self._target)):
            os.removexattr(self._target, mark)
        if found.mark is not None:
            os.setxattr(self._target, *found.mark)


def _is_directory(directory: int, name: str) -> bool | None:
    """Whether what has a name is a directory; None where there is nothing."""
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return None


def _is_whiteout(directory: int, name: str) -> bool:
    found = os.stat(name, dir_fd=directory, follow_symlinks=False)
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def _unknown(mark: bytes) -> OSError:
    return OSError(f"a directory of a layer is marked in a way that irons does not know: {mark!r}")


def _moved(directory: int, name: str) -> int:
    new = os.open(name, DIRECTORY, dir_fd=directory)
    os.close(directory)
    return new
