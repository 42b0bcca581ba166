"""Files that irons keeps."""

from __future__ import annotations

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
    """A file is 0600 unless said otherwise, and surrogate escapes go out as the bytes that they were."""
    path = tmp_path / "new" / "file"
    write_whole(path, "ü\udcff\n")
    assert path.read_bytes() == b"\xc3\xbc\xff\n"
    assert path.stat().st_mode & 0o777 == 0o600
    write_whole(path, "2", mode=0o644, durable=True)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("2", 0o644)


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    """Where the text can't be written the old file stays, and nothing lies beside it."""
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "\ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
