"""What virtual machines boot: a kernel kit, made once of one image and shared by all, and a disk of each image's files."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.local.image_archives import SYSTEM, Entry, Place, entry, make_place, unpacking, with_programs
from tests.machine import Machine as MachineNeeds

from irons_local.errors import EngineError
from irons_local.images.bootable import kernel_kits, store
from irons_local.images.catalog import MACHINE

RELEASE = "6.1.0-1"
KERNEL = entry(f"boot/vmlinuz-{RELEASE}", b"kernel")
SCRIPT = entry("bin/busybox", b"#!/bin/sh\n", mode=0o755)
BUSYBOX = entry("bin/busybox", b"\x7fELF\x02".ljust(64, b"\0"), mode=0o755)
"""A program that needs no libraries, as far as its headers say."""

HOME = f"usr/lib/modules/{RELEASE}"
MODULES = (
    entry(f"{HOME}/modules.dep", b"kernel/virtio_blk.ko:\n"),
    entry(f"{HOME}/kernel/virtio_blk.ko", b"a module"),
    entry(f"{HOME}/build", type=b"2", linkname="/etc"),
)


@pytest.fixture
def place(machine: MachineNeeds) -> Iterator[Place]:
    """A place of its own, on a machine that can make disks."""
    machine.require("mke2fs")
    with make_place() as made:
        yield made


def kernel_image(place: Place, kernel: bytes = b"kernel", *more: Entry) -> None:
    """Import an image that a kernel kit can be made of."""
    place.imported(
        *with_programs(), entry(f"boot/vmlinuz-{RELEASE}", kernel), BUSYBOX, *MODULES, *more, name=MACHINE
    )


def on_disk(disk: Path, path: str) -> str:
    """The names in a directory of a file system in a file."""
    words = ["debugfs", "-R", f"ls -p {path}", str(disk)]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@unpacking
@pytest.mark.parametrize(
    ("more", "lacks"),
    [
        ((), "there is no kernel for virtual machines"),
        ((KERNEL,), "the image has no static busybox, which starts a virtual machine"),
        ((KERNEL, SCRIPT), "the image has no static busybox, which starts a virtual machine"),
        ((KERNEL, BUSYBOX), f"the image has no modules of its kernel {RELEASE}"),
        ((KERNEL, BUSYBOX, *MODULES), "the kit cannot be made of the base image: usr/sbin/sshd: it is not a"),
    ],
)
def test_what_the_image_of_the_kernel_lacks_is_said(
    more: tuple[Entry, ...], lacks: str, place: Place
) -> None:
    """The line names it, the hint makes an image that has it; the next try says the same."""
    image = place.imported(*SYSTEM, *more, name=MACHINE)
    for _ in range(2):
        with pytest.raises(EngineError) as caught:
            asyncio.run(store.ensure(place.images, image))
        assert caught.value.message.startswith(lacks)
        assert caught.value.code == "image"
        assert "SSH" in lacks or "sshd" in lacks or "irons local image build --for vm" in caught.value.hint
    assert place.left() == [image.id]
    assert not list(image.home.glob("*vm*"))


@unpacking
def test_every_image_boots_the_one_kernel(place: Place) -> None:
    """An image without kernel, init and SSH server has a disk of its own, and kernel, modules and programs of the kit, made once."""
    kernel_image(place)
    (place.images.root / ".kernel-interrupted").mkdir()
    first = place.imported(*SYSTEM, name="first")
    second = place.imported(*SYSTEM, name="second")

    async def both() -> tuple[store.Bootable, store.Bootable]:
        return await asyncio.gather(store.ensure(place.images, first), store.ensure(place.images, second))

    one, two = asyncio.run(both())
    assert one.kit is not None
    assert one.kit == two.kit
    assert (one.kernel, one.release) == (two.kernel, RELEASE)
    assert one.kernel.read_bytes() == b"kernel"
    assert b"a module" in one.initrd.read_bytes()
    assert (one.disk, two.disk) == (first.home / "vm" / "disk", second.home / "vm" / "disk")
    assert one.kit.programs.server == ("", "/run/irons/kit/sshd")
    assert {"sshd", "sh", "cat"} <= set(one.kit.programs.names)
    names = on_disk(one.kit.disk, "/")
    assert all(f"/{name}/" in names for name in ("busybox", "modprobe", "sshd", "ld", "modules"))
    # What its modules lead to outside of them is another's.
    assert "/kernel/" in on_disk(one.kit.disk, f"/modules/{RELEASE}")
    assert "/build/" not in on_disk(one.kit.disk, f"/modules/{RELEASE}")
    assert len([name for name in place.left() if "kernel" in name]) == 1
    assert asyncio.run(store.ensure(place.images, first)) == one


@unpacking
def test_a_newer_kernel_serves_every_image(place: Place) -> None:
    """It takes the place of the one before; a machine boots the one that is there where none can be made, or its image is gone."""
    kernel_image(place)
    image = place.imported(*SYSTEM)
    assert asyncio.run(store.ensure(place.images, image)).kernel.read_bytes() == b"kernel"
    asyncio.run(place.images.remove(MACHINE))
    assert asyncio.run(store.ensure(place.images, image)).kernel.read_bytes() == b"kernel"
    kernel_image(place, b"a newer kernel")
    assert asyncio.run(store.ensure(place.images, image)).kernel.read_bytes() == b"a newer kernel"
    assert len([name for name in place.left() if "kernel" in name]) == 1
    place.imported(*SYSTEM, entry("boot/vmlinuz-7", b"of no use"), name=MACHINE)
    assert asyncio.run(store.ensure(place.images, image)).kernel.read_bytes() == b"a newer kernel"
    found = kernel_kits.newest(place.images)
    assert found is not None
    record = found.disk.with_name("kernel.json")
    record.write_text(json.dumps({**json.loads(record.read_text()), "version": [0, 0]}))
    kernel_image(place, b"of this version")
    assert asyncio.run(store.ensure(place.images, image)).kernel.read_bytes() == b"of this version"


@unpacking
def test_what_a_start_boots_stays_until_it_has_it_open(place: Place) -> None:
    """A newer kernel that is made meanwhile serves who looks then; the one before goes with the next that is made."""
    kernel_image(place)
    image = place.imported(*SYSTEM)

    def boots(before: bytes) -> store.Bootable:
        """What a start boots during which a newer kernel is built, and another machine starts from that."""

        async def other() -> None:
            async with store.held(place.images, image) as newer:
                assert newer.kernel.read_bytes() == b"newer than " + before

        async def run() -> store.Bootable:
            async with store.held(place.images, image) as found:
                assert found.kernel.read_bytes() == before
                await asyncio.to_thread(kernel_image, place, b"newer than " + before)
                await other()
                assert found.kernel.read_bytes() == before
                return found

        return asyncio.run(run())

    first = boots(b"kernel")
    second = boots(b"newer than kernel")
    assert not first.kernel.exists()
    for found, there in ((first, False), (second, True)):
        assert found.kit is not None
        with kernel_kits.held(found.kit) as is_held:
            assert is_held == there


@unpacking
def test_a_clock_that_goes_back_makes_no_kernel_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kit is made once of an image, and of one that came later, whatever the clock showed when it was made."""
    image = place.imported(*SYSTEM)
    monkeypatch.setattr(kernel_kits, "now", lambda: 1000)
    for kernel in (b"kernel", b"newer"):
        kernel_image(place, kernel)
        made = [asyncio.run(store.ensure(place.images, image)) for _ in range(2)]
        assert made[0].kernel.read_bytes() == kernel
        assert made[0] == made[1]


@unpacking
def test_an_image_of_an_older_irons_keeps_its_kernel(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its disk is what machines wrote over: it is not made again, and neither a kit nor its image is needed."""
    image = place.imported(*SYSTEM)
    home = image.home / "vm"
    home.mkdir()
    for name in ("disk", "kernel", "initrd"):
        (home / name).write_bytes(name.encode())
    (home / "boot.json").write_text(json.dumps({"kernel": "6.0", "size": 4096}))
    found = asyncio.run(store.ensure(place.images, image))
    assert found == store.Bootable(home / "disk", home / "kernel", home / "initrd", "6.0", 4096)
    assert found.disk.read_bytes() == b"disk"

    async def offline(*_words: object, **_more: object) -> None:
        raise EngineError("image", "the mirror cannot be reached")

    # Without a kit, and without a way to one.
    monkeypatch.setattr(place.images, "build", offline)
    asyncio.run(store.prepare(place.images, image))
    asyncio.run(store.prepare(place.images, None))
    with pytest.raises(EngineError, match="the mirror cannot be reached"):
        asyncio.run(store.prepare(place.images, place.imported(*SYSTEM, name="other")))
