"""What an image must have so that a virtual machine can boot it: what is missing is said in one line, and nothing is left."""

from __future__ import annotations

import asyncio

import pytest
from tests.local.image_archives import SYSTEM, entry, make_place, unpacking
from tests.machine import Machine as MachineNeeds

from irons_local.errors import EngineError
from irons_local.images.bootable import store

KERNEL = (entry("boot/"), entry("boot/vmlinuz-6.1.0-1", b"kernel"))
SCRIPT = entry("bin/busybox", b"#!/bin/sh\n", mode=0o755)


@unpacking
@pytest.mark.parametrize(
    ("more", "lacks"),
    [
        ((), "the image has no kernel (/boot/vmlinuz-…)"),
        (KERNEL, "the image has no static busybox, which starts a virtual machine"),
        ((*KERNEL, SCRIPT), "the image has no static busybox, which starts a virtual machine"),
    ],
)
def test_what_an_image_lacks_is_said(
    more: tuple[tuple[str, dict[str, object], bytes], ...], lacks: str, machine: MachineNeeds
) -> None:
    """The line names it, the hint makes an image that has it; the next try says the same."""
    machine.require("mke2fs")
    with make_place() as place:
        image = place.imported(*SYSTEM, *more)
        for _ in range(2):
            with pytest.raises(EngineError) as caught:
                asyncio.run(store.ensure(place.images, image))
            assert (caught.value.message, caught.value.code) == (lacks, "image")
            assert "irons local image build --for vm" in caught.value.hint
        assert not list(image.home.glob(".vm-new-*"))
        assert store.Bootable.read(image) is None
