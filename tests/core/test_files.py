"""Files that irons keeps."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from irons.files import make_private, write_whole


def test_directories_are_their_owners_alone(tmp_path: Path) -> None:
    """Every directory that is made is 0700; those that are there keep their mode."""
    (tmp_path / "there").mkdir(mode=0o755)
    (tmp_path / "there").chmod(0o755)
    make_private(tmp_path / "there" / "a" / "b")
    modes = [(tmp_path / name).stat().st_mode & 0o777 for name in ("there", "there/a", "there/a/b")]
    assert modes == [0o755, 0o700, 0o700]


def test_a_file_is_whole_and_private(tmp_path: Path) -> None:
    """A file is 0600 unless another mode is given, and surrogate escapes go out as the bytes that they were."""
    path = tmp_path / "new" / "file"
    write_whole(path, "ü\udcff\n")
    assert path.read_bytes() == b"\xc3\xbc\xff\n"
    assert path.stat().st_mode & 0o777 == 0o600
    write_whole(path, "2", mode=0o644, durable=True)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("2", 0o644)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """Where the text can't be written the old file stays, and nothing lies next to it."""
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_removed_directory_is_not_made_again(tmp_path: Path) -> None:
    """Without `parents` a file of a directory that was removed is refused, and the directory stays away."""
    with pytest.raises(FileNotFoundError):
        write_whole(tmp_path / "gone" / "file", "text", parents=False)
    assert not list(tmp_path.iterdir())


def test_a_durable_file_is_on_the_disk_before_its_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text is forced out before the rename and the directory after it, so that a power loss finds one whole file."""
    path, done = tmp_path / "file", []
    path.write_text("old")

    def forced(descriptor: int) -> None:
        directory = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        done.append(("directory" if directory else "text", path.read_text()))

    monkeypatch.setattr(os, "fsync", forced)
    write_whole(path, "new", durable=True)
    assert done == [("text", "old"), ("directory", "new")]


@pytest.mark.process
def test_a_file_is_written_without_another_import(tmp_path: Path) -> None:
    """A confined process can write a file: it may be unable to read the modules of its own interpreter."""
    code = (
        "import sys; from pathlib import Path; from irons.files import write_whole; "
        "sys.path.clear(); sys.path_importer_cache.clear(); write_whole(Path(sys.argv[1]), 'x', durable=True)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "file")], check=True)
    assert (tmp_path / "file").read_text() == "x"
