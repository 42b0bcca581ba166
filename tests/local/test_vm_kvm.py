"""Whether KVM works: what a tiny guest that is tried on it tells, and that an engine tries it once."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from irons_local.engines.protocol import Kit
from irons_local.engines.vm import kvm, qemu
from irons_local.engines.vm.engine import VmEngine

if TYPE_CHECKING:
    from irons_local.engines.protocol import Cells


@pytest.mark.parametrize(
    ("status", "complaint", "why"),
    [
        (33, b"", ""),
        (1, b"qemu-system-x86_64: failed to initialize kvm: Permission denied\n", "failed to initialize kvm"),
        (1, b"", "exit code 1"),
        (-6, b"kvm_buf_set_msrs: Assertion failed\n", "runs no guest: QEMU died by signal 6"),
        (None, b"", "did not run within"),
        (0, b"Could not access KVM kernel module: No such device\nqemu: bye\n", "Could not access KVM"),
    ],
)
def test_the_end_of_a_tiny_guest_says_whether_kvm_works(
    status: int | None, complaint: bytes, why: str
) -> None:
    """Only a guest that ran its instructions counts; each other end has a reason."""
    found = kvm.judged(status, complaint)
    assert found.usable == (status == 33)
    assert why in found.why
    assert found.why.isprintable()


@pytest.mark.parametrize(
    ("answer", "usable"),
    [({"enabled": True, "present": True}, True), ({"enabled": False}, False), ([], False)],
)
def test_a_machine_that_may_not_open_kvm_is_said_to_be_emulated(answer: object, usable: bool) -> None:
    """What QEMU uses counts, not what this machine could."""
    assert kvm.in_use(answer).usable is usable


def test_the_tiny_guest_is_firmware_that_ends_qemu() -> None:
    """It is 64 KiB, and begins at the reset vector with `mov al, 0x10; out 0xf4, al`."""
    firmware = kvm.guest()
    assert len(firmware) == 64 << 10
    assert firmware[-16:-11] == bytes((0xB0, 0x10, 0xE6, 0xF4, 0xF4))
    words = kvm.words("qemu", "rom")
    options = list(pairwise(words))
    assert [value for option, value in options if option == "-device"] == [
        "isa-debug-exit,iobase=0xf4,iosize=1"
    ]
    assert [value for option, value in options if option == "-accel"] == ["kvm"]


def test_a_missing_device_needs_no_guest(tmp_path: Path) -> None:
    """Nothing is started where there is no `/dev/kvm`."""

    async def main() -> None:
        found = await kvm.probe("/nonexistent", tmp_path / "kvm")
        assert (found.usable, "there is no" in found.why) == (False, True)

    asyncio.run(main())


@pytest.mark.process
@pytest.mark.parametrize(
    ("end", "usable", "why"),
    [
        ("exit 33", True, ""),
        (
            "echo 'qemu-system-x86_64: failed to initialize kvm: Invalid argument' >&2; exit 1",
            False,
            "initialize",
        ),
        ("kill -KILL $$", False, "QEMU died by signal 9"),
        ("exec sleep 3600", False, "did not run within"),
    ],
)
def test_a_device_that_is_there_is_tried_by_a_guest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str, why: str, *, usable: bool
) -> None:
    """A stand-in for QEMU gets the tiny guest, and how it ends decides; one that hangs is ended, and no firmware is left."""
    stand_in, device = tmp_path / "qemu", tmp_path / "kvm"
    stand_in.write_text(
        f'#!/bin/sh\nfor each; do [ ! -f "$each" ] || {{ cp "$each" {tmp_path}/got; echo "$each" >>{tmp_path}/asked; }}; done\n{end}\n'
    )
    stand_in.chmod(0o755)
    device.touch()
    if "sleep" in end:
        monkeypatch.setattr(kvm, "_WITHIN", 0.5)
    else:
        monkeypatch.setattr(kvm, "_WITHIN", 600.0)
    found = asyncio.run(kvm.probe(str(stand_in), device))
    assert (found.usable, why in found.why) == (usable, True), found
    if "sleep" not in end:
        # One that is ended for its time may not have come so far.
        assert (tmp_path / "got").read_bytes() == kvm.guest()
        assert not Path((tmp_path / "asked").read_text().strip()).exists()


@pytest.mark.process
@pytest.mark.parametrize("end", ["exit 33", "exit 1"])
def test_kvm_is_tried_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str) -> None:
    """An engine remembers what it found, whatever that is: each later start asks no guest."""
    stand_in, device = tmp_path / qemu.PROGRAM, tmp_path / "kvm"
    stand_in.write_text(f"#!/bin/sh\necho one >>{tmp_path}/runs\n{end}\n")
    stand_in.chmod(0o755)
    device.touch()
    monkeypatch.setattr(qemu, "search_path", lambda: str(tmp_path))
    monkeypatch.setattr(kvm, "_WITHIN", 600.0)
    monkeypatch.setattr(kvm.probe, "__defaults__", (device,))
    engine = VmEngine(Kit(cast("Cells", object()), tmp_path / "images", tmp_path / "sandboxes"))

    async def main() -> list[bool]:
        return [(await engine._accelerator()).usable for _ in range(3)]

    assert asyncio.run(main()) == [end == "exit 33"] * 3
    assert (tmp_path / "runs").read_text() == "one\n"
