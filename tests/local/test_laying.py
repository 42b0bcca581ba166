"""The files of a new machine, laid over whatever a copy came with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from irons_local.engines.namespace import boot


def test_a_directory_in_the_way_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one is replaced; one with something in it stays, and the error says which it is and what to do."""
    monkeypatch.setattr(boot, "ROOTFS", tmp_path)
    monkeypatch.setattr(boot, "_SANDBOX_ROOT", os.getuid())
    (tmp_path / "etc/hostname").mkdir(parents=True)
    (tmp_path / "etc/hosts/deep").mkdir(parents=True)
    boot._lay({"etc/hostname": "box\n"})
    assert (tmp_path / "etc/hostname").read_text() == "box\n"
    with pytest.raises(OSError, match=r"^/etc/hosts is a directory with something in it.* remove it"):
        boot._lay({"etc/hosts": "box\n"})
    assert (tmp_path / "etc/hosts/deep").is_dir()
