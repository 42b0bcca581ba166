"""Counting the public keys that lie in layers, as an overlay of them shows the files."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from irons_local.images.inside import keys

LINE = "ssh-ed25519 AAAA someone\n"


@pytest.fixture
def layers(tmp_path: Path) -> tuple[Path, Path]:
    """Two layers, the topmost first: below, bob and root have a key each."""
    above, below = tmp_path / "above", tmp_path / "below"
    for home in ("root", "home/bob"):
        (below / home / ".ssh").mkdir(parents=True)
        (below / home / ".ssh/authorized_keys").write_text(LINE)
    (above / "home/bob").mkdir(parents=True)
    return above, below


def _counted(layers: tuple[Path, Path]) -> int:
    opened = {str(n): os.open(path, os.O_RDONLY | os.O_DIRECTORY) for n, path in enumerate(layers)}
    try:
        found: int = keys.count(dict(opened), lambda _line, _done: None)["keys"]
        return found
    finally:
        for each in opened.values():
            os.close(each)


def _replaced(above: Path) -> None:
    (above / "home/bob/.ssh").mkdir()
    (above / "home/bob/.ssh/authorized_keys").write_text(LINE * 3)


def _not_a_directory(above: Path) -> None:
    # Stands for a whiteout, which only root can make: neither is a directory.
    (above / "home/bob/.ssh").touch()


def _home_is_gone(above: Path) -> None:
    (above / "home/bob").rmdir()
    (above / "home").rmdir()
    (above / "home").touch()


def _linked(above: Path) -> None:
    (above / "home/bob/.ssh").symlink_to("elsewhere")


@pytest.mark.parametrize(
    ("change", "keys_left"),
    [(lambda _: None, 2), (_replaced, 4), (_not_a_directory, 1), (_home_is_gone, 1), (_linked, 1)],
)
def test_what_a_layer_hides_is_not_counted(
    layers: tuple[Path, Path], change: Callable[[Path], None], keys_left: int
) -> None:
    """A file, and each directory above it, hides that of the layers below where it is something else there."""
    change(layers[0])
    assert _counted(layers) == keys_left


def test_what_an_opaque_directory_hides_is_not_counted(layers: tuple[Path, Path]) -> None:
    """A directory that was removed and made again hides what it had."""
    above = layers[0] / "home/bob/.ssh"
    above.mkdir()
    try:
        os.setxattr(above, "user.overlay.opaque", b"y")
    except OSError:
        pytest.skip("this file system keeps no attributes of users")
    assert _counted(layers) == 1
