"""Starts that fail: each says why in one line, and leaves a sandbox that is stopped and can be repaired."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.local.engine_cells import OwnCells

from irons_local.bundle import sshd
from irons_local.bundle.machine import Machine
from irons_local.engines import homes, starting
from irons_local.engines.namespace import boot, launch
from irons_local.engines.namespace.engine import NamespaceEngine
from irons_local.engines.protocol import Kit, Spec
from irons_local.errors import CellError, EngineError
from irons_local.images.catalog import Images
from irons_local.images.kit.store import Kits
from irons_local.limits import Limits
from irons_local.linux.idmap import IdMapError

pytestmark = pytest.mark.e2e
SANDBOX = "sb_0000000000fa1150"


class Home:
    """Somewhere with an image, a key and an engine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.cells = OwnCells()
        self.engine = NamespaceEngine(Kit(self.cells, root / "images", root / "sandboxes"))

    def spec(self, limits: Limits | None = None) -> Spec:
        """A sandbox to make."""
        key = (self.root / "id.pub").read_text()
        return Spec(SANDBOX, "failing", key, limits=limits or Limits())

    def start_fails(self) -> EngineError:
        """Why a start fails; afterwards nothing of it runs."""

        async def run() -> None:
            await self.engine.start(SANDBOX)

        with pytest.raises(EngineError) as caught:
            asyncio.run(run())
        assert "\n" not in caught.value.message
        assert asyncio.run(self.engine.look(SANDBOX)).state == "stopped"
        assert self.cells.held == {}
        return caught.value

    def change_image(self, **values: Any) -> dict[str, Any]:
        """Change what is recorded of the image; gives what it was."""
        (path,) = (self.root / "images").glob("img_*/image.json")
        before: dict[str, Any] = json.loads(path.read_text())
        path.write_text(json.dumps({**before, **values}))
        return before

    def without_kit(self) -> None:
        """Make the sandbox one of an older version, which runs the SSH server of its image."""
        path = self.root / "sandboxes" / SANDBOX / "machine.json"
        body = json.loads(path.read_text())
        assert body.pop("kit").startswith("kit_")
        path.write_text(json.dumps(body))

    def server(self) -> str:
        """The path of the SSH server that a start of the sandbox runs."""

        async def run() -> str:
            await self.engine.start(SANDBOX)
            process = Machine.running(self.root / "sandboxes" / SANDBOX)
            assert process is not None
            script = Path(f"/proc/{process.pid}/root/run/irons/init").read_text()  # noqa: ASYNC240
            return script.splitlines()[-1].split()[1]

        return asyncio.run(run())


@pytest.fixture(scope="module")
def home(place_for_all: Path, archive: Path) -> Iterator[Home]:
    """One home for all of them."""
    root = place_for_all / "failing"
    root.mkdir(mode=0o700)
    asyncio.run(Images(root / "images", root / "sandboxes").import_(archive, "debian"))
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(root / "id")], check=True)
    yield Home(root)
    shutil.rmtree(root)


@pytest.fixture(autouse=True)
def sandbox(home: Home) -> Iterator[str]:
    """A stopped sandbox, that can still be started and destroyed afterwards."""
    asyncio.run(home.engine.create(home.spec()))
    yield SANDBOX

    async def mended() -> None:
        await home.engine.start(SANDBOX)
        await home.engine.destroy(SANDBOX)

    asyncio.run(mended())
    assert list((home.root / "sandboxes").iterdir()) == []


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"sshd": "/bin/false"}, "ended as soon as it was started"),
        ({"sshd": "/bin/false", "tini": ""}, "ended"),
        ({"sshd": "/none", "tini": ""}, "/none: not found"),
        ({"sshd": "/usr/bin/env"}, "env --help"),
    ],
    ids=["ends", "ends as process 1", "is not there", "complains"],
)
def test_an_ssh_server_that_does_not_run(home: Home, values: dict[str, str], says: str) -> None:
    """What it reported last is passed on."""
    home.without_kit()
    before = home.change_image(**values)
    try:
        assert says in home.start_fails().message
    finally:
        home.change_image(**before)


def test_the_kit_serves_but_a_sandbox_of_an_older_version_keeps_its_own_server(home: Home) -> None:
    """A sandbox that was made before there was a kit starts with the SSH server of its image; others with the newest kit."""
    assert home.server() == "/run/irons/kit/sshd"
    asyncio.run(home.engine.stop(SANDBOX))
    home.without_kit()
    assert home.server() == "/usr/sbin/sshd"


def test_a_kit_of_an_older_irons_is_made_again_at_the_next_start(
    home: Home, caplog: pytest.LogCaptureFixture
) -> None:
    """After an upgrade a sandbox that is there already gets what the new kit has; the log says so, once."""
    caplog.set_level(logging.INFO)
    kits = Kits(home.root / "images")
    old = kits.newest()
    assert old is not None
    (old.home / "kit.json").write_text(
        json.dumps({**json.loads((old.home / "kit.json").read_text()), "version": 1})
    )
    assert home.server() == "/run/irons/kit/sshd"
    machine = Machine.read(home.root / "sandboxes" / SANDBOX)
    newest = kits.newest()
    assert newest is not None
    assert (newest.is_current, newest.id) == (True, machine.kit)
    assert machine.kit != old.id
    asyncio.run(home.engine.stop(SANDBOX))
    assert home.server() == "/run/irons/kit/sshd"
    assert [each.getMessage() for each in caplog.records if "made again" in each.getMessage()] == [
        f"the SSH server for sandboxes was made again for this version of irons: {newest.id}"
    ]


def test_a_machine_that_has_ended_before_it_is_looked_at(home: Home) -> None:
    """What it reported last is passed on all the same."""
    read, write = os.pipe()
    os.write(write, b"a library is missing\nI give up\n")
    os.close(write)
    try:
        with pytest.raises(EngineError, match=r"ended as soon as it was started: I give up$"):
            asyncio.run(launch.greeted(home.cells, SANDBOX, None, read))
    finally:
        os.close(read)


def test_an_ssh_server_that_does_not_answer(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is waited for no longer than it may take."""
    before = home.change_image(sshd="/bin/sleep", tini="/usr/bin/env")
    monkeypatch.setattr(launch, "_READY_WITHIN", 0.5)
    monkeypatch.setattr(sshd, "arguments", lambda *_: ["/bin/sleep", "60"])
    try:
        assert home.start_fails().code == "timeout"
    finally:
        home.change_image(**before)


def test_a_boot_that_hangs_is_ended(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start that gets nowhere is given up, and what it began is ended."""
    monkeypatch.setattr(launch, "BOOT_WITHIN", 0.02)
    assert home.start_fails().code == "timeout"


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (lambda patch: patch.setattr(starting, "search_path", lambda: "/none"), "crun is not installed"),
        (lambda patch: patch.setattr(starting, "outer_map", _no_ids), "no ids"),
        (lambda patch: patch.setattr(OwnCells, "make", _no_cell), "no cell"),
        (lambda patch: patch.setattr(boot, "ROOTFS", Path("/proc/none")), "start failed"),
    ],
    ids=["no crun", "no ids", "no cell", "no place"],
)
def test_a_machine_that_lacks_something(
    home: Home, monkeypatch: pytest.MonkeyPatch, broken: Callable[[pytest.MonkeyPatch], None], says: str
) -> None:
    """What is missing is named."""
    with monkeypatch.context() as patch:
        broken(patch)
        assert says in home.start_fails().message


def _no_ids() -> None:
    raise IdMapError("no ids")


async def _no_cell(_self: OwnCells, _cell: str) -> None:
    raise CellError("no cell")


def test_what_is_being_saved_is_not_started(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copying and running the same files at the same time is refused, from either side."""
    monkeypatch.setattr(homes, "_BUSY_WITHIN", 0.1)

    async def both() -> None:
        async with Machine.held(home.root / "sandboxes" / SANDBOX):
            for work in (home.engine.start(SANDBOX), home.engine.destroy(SANDBOX)):
                with pytest.raises(EngineError, match="busy"):
                    await work

    asyncio.run(both())


def test_what_is_damaged_is_said_and_can_be_destroyed(home: Home) -> None:
    """A sandbox whose record is gone is broken, starts no more, and can be removed."""
    record = home.root / "sandboxes" / SANDBOX / "machine.json"
    record.rename(record.with_suffix(".away"))
    look = asyncio.run(home.engine.look(SANDBOX))
    assert look.state == "broken"
    assert "damaged" in look.reason
    record.with_suffix(".away").rename(record)


def test_an_image_that_is_gone_is_said(home: Home) -> None:
    """A sandbox whose image someone removed by hand fails with that reason."""
    (image,) = (home.root / "images").glob("img_*")
    image.rename(home.root / "away")
    try:
        assert home.start_fails().code == "image"
    finally:
        (home.root / "away").rename(image)


@pytest.mark.parametrize(
    "limits", [Limits(cpus=0.0), Limits(memory=1), Limits(processes=1), Limits(cpus=float("nan"))]
)
def test_limits_in_which_nothing_could_run_are_refused(home: Home, limits: Limits) -> None:
    """The least that each can be is reported."""
    spec = home.spec(limits)
    with pytest.raises(EngineError, match="the least") as caught:
        asyncio.run(home.engine.create(Spec("sb_0000000000fa1151", "low", spec.public_key, limits=limits)))
    assert caught.value.code == "input"


def test_a_port_that_nobody_serves_is_refused(home: Home) -> None:
    """A connection is refused as the machine refuses it, and one to a stopped machine because it is stopped."""

    async def refused() -> None:
        with pytest.raises(EngineError) as caught:
            await home.engine.connect(SANDBOX)
        assert caught.value.code == "state"
        await home.engine.start(SANDBOX)
        with pytest.raises(EngineError, match="9999") as caught:
            await home.engine.connect(SANDBOX, port=9999)
        assert caught.value.code == "failed"
        await home.engine.stop(SANDBOX)

    asyncio.run(refused())
