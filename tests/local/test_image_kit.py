"""The kit: programs of this machine changed to run by their own loader, and the kits that images share."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.local.image_archives import (
    SYSTEM,
    Place,
    archive,
    entry,
    libraries,
    make_place,
    unpacking,
    with_programs,
)

from irons_local.bundle.oci import KIT_DIRECTORY
from irons_local.errors import EngineError
from irons_local.images.kit.collect import VERSION
from irons_local.images.kit.elf import Elf, ElfError
from irons_local.images.kit.store import Kits

_TRUE = Path("/bin/true")


@pytest.fixture
def place() -> Iterator[Place]:
    """A place of its own."""
    with make_place() as made:
        yield made


@pytest.mark.process
def test_a_program_runs_beside_its_own_loader_and_libraries(tmp_path: Path) -> None:
    """Changed, it takes the loader that it is given and every library from its own directory; the system's are not read."""
    elf = Elf.parse(_TRUE.read_bytes())
    assert "libc.so.6" in elf.needed
    assert elf.interpreter in ("/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1")
    room = Path(f"/tmp/ld{os.getpid() % 10000:04}")
    room.mkdir(mode=0o700)
    try:
        for name, path in libraries(_TRUE).items():
            (room / Path(name).name).write_bytes(path.read_bytes())
        loader = room / "ld"
        (room / Path(elf.interpreter).name).rename(loader)
        loader.chmod(0o755)
        program = room / "true"
        program.write_bytes(elf.beside(str(loader)))
        program.chmod(0o755)
        again = Elf.parse(program.read_bytes())
        assert (again.interpreter, again.needed) == (str(loader), elf.needed)
        env = {"LD_TRACE_LOADED_OBJECTS": "1"}
        told = subprocess.run([str(program)], env=env, capture_output=True, text=True, check=True).stdout
        assert [line.split()[2] for line in told.splitlines() if "=>" in line] == [
            str(room / name) for name in elf.needed
        ]
        assert subprocess.run([str(program)], check=False).returncode == 0
    finally:
        for path in room.iterdir():
            path.unlink()
        room.rmdir()


def test_a_program_without_room_for_a_loader_is_refused() -> None:
    """A path that is longer than the one that is there does not fit."""
    with pytest.raises(ElfError, match="no room"):
        Elf.parse(_TRUE.read_bytes()).beside("/" + "x" * 40)


@given(st.integers(0, 4000), st.binary(min_size=1, max_size=8))
def test_a_damaged_program_raises_nothing_else(at: int, spoiled: bytes) -> None:
    """Headers are a stranger's: no matter what they say, the answer is a program or the one error."""
    data = bytearray(_TRUE.read_bytes())
    data[at : at + len(spoiled)] = spoiled
    try:
        elf = Elf.parse(bytes(data))
        elf.beside(f"{KIT_DIRECTORY}/ld")
        assert isinstance(elf.needed, tuple)
    except ElfError:
        pass


def _base(place: Place) -> None:
    """A base image with programs of this machine in it, as `debian`."""
    path = archive(place.root / "base.tar", *with_programs(), entry("bin/ls", b"#!/bin/sh\n", mode=0o755))
    asyncio.run(place.images.import_(path, "debian"))


@unpacking
def test_a_kit_is_made_once_of_the_base_image(place: Place) -> None:
    """It holds the programs that the image has with all they need, is shared, and goes when no one needs it."""
    _base(place)
    base = place.images.base()
    assert base is not None
    kits = Kits(place.root / "images")

    async def both() -> None:
        first, second = await asyncio.gather(kits.ensure(base), kits.ensure(base))
        assert first == second == kits.newest() == kits.by_id(first.id)

    asyncio.run(both())
    kit = kits.newest()
    assert kit is not None
    assert set(kit.names) == {"sshd", "sshd-session", "sh", "cat"}
    assert kit.helpers == {"SshdSessionPath": "/run/irons/kit/sshd-session"}
    assert kit.server == ("", "/run/irons/kit/sshd")
    assert {"ld", "libc.so.6", *kit.names} == {path.name for path in kit.files.iterdir()}
    assert Elf.parse((kit.files / "sshd").read_bytes()).interpreter == f"{KIT_DIRECTORY}/ld"
    told = json.loads((kit.home / "kit.json").read_text())
    assert told.pop("version") > 1
    (kit.home / "kit.json").write_text(json.dumps(told))
    assert asyncio.run(kits.ensure(base)).id != kit.id, "one of an older version lacks programs"
    (kit.home / "kit.json").write_text(json.dumps({**told, "version": VERSION}))
    _base(place)
    newer = place.images.base()
    assert newer is not None
    again = asyncio.run(kits.ensure(newer))
    asyncio.run(kits.remove_unused(frozenset([kit.id])))
    assert kits.by_id(kit.id) == kit
    asyncio.run(kits.remove_unused(frozenset()))
    assert kits.by_id(kit.id) is None
    assert kits.newest() == again


@unpacking
def test_a_kit_is_not_made_of_what_a_sandbox_had_a_hand_in(place: Place) -> None:
    """An SSH server that is not a program is refused; nothing of a failed kit is left; a saved image is not a base."""
    image = place.imported(*SYSTEM)
    with pytest.raises(EngineError, match="kit cannot be made") as caught:
        asyncio.run(Kits(place.root / "images").ensure(image))
    assert caught.value.code == "image"
    assert place.left() == [image.id]
    assert place.images.base() is None
