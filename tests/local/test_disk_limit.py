"""A disk limit is refused, before anything is made, where it cannot be enforced."""

from __future__ import annotations

import pytest

from irons_local.errors import EngineError
from irons_local.limits import Limits
from irons_local.linux import disk_images

SOME = Limits(disk=1 << 30)


def test_an_ordinary_user_is_told_which_engine_could() -> None:
    """The message says why, and names virtual machines; without a limit there is nothing to refuse."""
    disk_images.check(Limits(), 1000)
    with pytest.raises(EngineError, match="only where irons runs as root") as refused:
        disk_images.check(SOME, 1000)
    assert refused.value.code == "limit"
    assert "--engine vm" in refused.value.hint


def test_a_machine_that_lacks_something_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without mkfs.ext4, or without loop devices, the limit is refused with the check of doctor's that says what to do."""
    monkeypatch.setattr("irons_local.linux.disk_images.shutil.which", lambda name, **_: f"/sbin/{name}")
    monkeypatch.setattr(disk_images, "LOOP_DEVICES", "/dev/null")
    disk_images.check(SOME, 0)
    with pytest.raises(EngineError, match="the least is"):
        disk_images.check(Limits(disk=1 << 20), 0)
    monkeypatch.setattr(disk_images, "LOOP_DEVICES", "/nowhere")
    with pytest.raises(EngineError, match="cannot be opened") as refused:
        disk_images.check(SOME, 0)
    assert (refused.value.code, refused.value.hint) == ("machine", "see `irons doctor`: disk-limits")
    monkeypatch.setattr("irons_local.linux.disk_images.shutil.which", lambda *_, **__: None)
    with pytest.raises(EngineError, match=r"mkfs\.ext4 is not installed"):
        disk_images.check(SOME, 0)
