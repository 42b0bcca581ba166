"""Merging the files of several layers into one directory, which shows what they show over one another. Runs in namespace B.

Files are linked and not copied: a layer never changes, so one inode serves both, and nothing that a file holds can be lost.
A directory gets the attributes of the topmost one, and hides what is below all of these layers where one of them does.

What a sandbox controls: every name, depth, kind, mode and attribute in the layers, and nothing while this runs. Every step is by
descriptor and through no link, with one descriptor for each layer however deep it goes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

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

    Returns:
        `renamed`, as of `stacked`.

    Raises:
        OSError: something cannot be read or made.
    """
    os.nice(_NICE)
    trees = [request[str(number)] for number in range(request["count"])]
    return {"renamed": stacked(trees, request["target"], redirects=False)}


def stacked(trees: Sequence[int], target: int, *, redirects: bool) -> int | None:
    """Merge layers into an empty directory.

    Args:
        trees: descriptors of the layers, topmost first.
        target: that of the directory.
        redirects: they are mounted as the machine's root does, whose marks only it can read and write.

    Returns:
        The number of a layer that says of a directory what it was called in the layers below, and is not the last: only those
        from the top to it can be merged, or those below it. None where all are.

    Raises:
        OSError: something cannot be read or made.
    """
    work = _Stack(trees, target, _OF_ROOT if redirects else _OF_USER)
    try:
        work.run()
    except _RenamedError as error:
        return error.layer
    finally:
        work.close()
    return None


class _RenamedError(Exception):
    def __init__(self, layer: int) -> None:
        self.layer = layer


class _Frame:
    """One directory: the layers that it is in, whether it hides what is below them, and the directories in it that wait."""

    __slots__ = ("hides", "inner", "layers")

    def __init__(self, layers: Sequence[int], *, hides: bool) -> None:
        self.layers = layers
        self.hides = hides
        self.inner: list[tuple[str, Sequence[int], bool]] = []


class _Stack:
    def __init__(self, trees: Sequence[int], target: int, marks: str) -> None:
        self._marks = marks
        self._here = [os.dup(tree) for tree in trees]
        self._target = os.dup(target)

    def close(self) -> None:
        for descriptor in (*self._here, self._target):
            os.close(descriptor)

    def run(self) -> None:
        frames = [self._entered(range(len(self._here)), hides=False)]
        while frames:
            frame = frames[-1]
            if frame.inner:
                name, layers, hides = frame.inner.pop()
                os.mkdir(name, 0o700, dir_fd=self._target)
                self._go(name, layers)
                frames.append(self._entered(layers, hides=hides))
            else:
                frames.pop()
                self._left(frame)
                if frames:
                    self._go("..", frame.layers)

    def _go(self, name: str, layers: Sequence[int]) -> None:
        """Go to a directory, in the merged one and in the layers that have it; the others wait where they are."""
        self._target = _moved(self._target, name)
        for layer in layers:
            self._here[layer] = _moved(self._here[layer], name)

    def _entered(self, layers: Sequence[int], *, hides: bool) -> _Frame:
        """Link what lies in a directory but for the directories in it, which wait."""
        frame = _Frame(layers, hides=hides)
        names: dict[str, list[tuple[int, bool]]] = {}
        for layer in layers:
            with os.scandir(self._here[layer]) as entries:
                for entry in entries:
                    found = (layer, entry.is_dir(follow_symlinks=False))
                    names.setdefault(entry.name, []).append(found)
        for name, places in names.items():
            layer, is_directory = places[0]
            if is_directory:
                frame.inner.append((name, *self._seen(name, places)))
            else:
                # A whiteout too: what it hides may be below all of these layers.
                os.link(
                    name,
                    name,
                    src_dir_fd=self._here[layer],
                    dst_dir_fd=self._target,
                    follow_symlinks=False,
                )
        return frame

    def _seen(self, name: str, places: Sequence[tuple[int, bool]]) -> tuple[Sequence[int], bool]:
        """The layers whose directories of a name are seen as one, and whether these hide what is below them (overlayfs.rst)."""
        layers: list[int] = []
        for layer, is_directory in places:
            if not is_directory:
                # Something else of that name, or a whiteout, ends what a directory above it is merged with.
                return layers, True
            layers.append(layer)
            if self._hides(name, layer):
                return layers, True
        return layers, False

    def _hides(self, name: str, layer: int) -> bool:
        directory = os.open(name, DIRECTORY, dir_fd=self._here[layer])
        try:
            there = os.listxattr(directory)
            if self._marks + _REDIRECT in there and layer != len(self._here) - 1:
                raise _RenamedError(layer)
            if self._marks + _OPAQUE not in there:
                return False
            mark = os.getxattr(directory, self._marks + _OPAQUE)
            if mark != _HIDES:
                raise OSError(f"a directory of a layer is marked in a way that irons does not know: {mark!r}")
            return True
        finally:
            os.close(directory)

    def _left(self, frame: _Frame) -> None:
        """Give a directory the attributes of the topmost one, and what the lowest says of those below."""
        top, lowest = self._here[frame.layers[0]], self._here[frame.layers[-1]]
        copy_attributes(top, self._target, os.fstat(top))
        name = self._marks + _REDIRECT
        if name in os.listxattr(lowest):
            os.setxattr(self._target, name, os.getxattr(lowest, name))
        if frame.hides:
            os.setxattr(self._target, self._marks + _OPAQUE, _HIDES)


def _moved(directory: int, name: str) -> int:
    new = os.open(name, DIRECTORY, dir_fd=directory)
    os.close(directory)
    return new
