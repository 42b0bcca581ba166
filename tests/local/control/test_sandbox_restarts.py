"""What a restart, a kill or a machine that ended leaves of sandboxes, and how the control plane comes back from it."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.local.control.conftest import HOUR
from tests.local.control.lab import KEY, Lab, PretendEngine, control_plane, run, until, until_called

from irons_local.control.sandbox import lifecycle
from irons_local.control.store import sandboxes
from irons_local.errors import EngineError
from irons_local.paths import Paths


def test_a_machine_that_ends_by_itself_is_stopped(tmp_path: Path) -> None:
    """When the last process is gone, the sandbox is `stopped`, its port is closed, and it starts again."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            made = await lab.create("box")
            port = (await lab.client.get("/sandboxes/box/ssh")).json()["port"]
            lab.engine.die(made["id"])
            await lab.reaches("box", "stopped")
            with pytest.raises(OSError, match=str(port)):
                await asyncio.open_connection("127.0.0.1", port)
            await lab.posted("/sandboxes/box/start")
            await lab.reaches("box", "ready")

    run(work())


def test_a_restart_finds_what_runs(tmp_path: Path) -> None:
    """A new control plane adopts living sandboxes, with their ports and policies, and calls the others stopped."""

    async def work() -> None:
        engine = PretendEngine()
        async with control_plane(tmp_path, engine) as lab:
            living, dead = await lab.create("living", mode="deny"), await lab.create("dead")
            before = (await lab.client.get("/sandboxes/living/ssh")).json()
        del engine.running[dead["id"]]
        async with control_plane(tmp_path, engine) as lab:
            await lab.reaches("living", "ready")
            await lab.reaches("dead", "stopped")
            assert (await lab.client.get("/sandboxes/living/ssh")).json() == before
            _, writer = await asyncio.open_connection(before["host"], before["port"])
            writer.close()

            async def told() -> bool:
                return lab.policies.get(living["id"], {}).get("mode") == "deny"

            await until(told)
            assert ("stop", living["id"]) not in engine.calls

    run(work())


@pytest.mark.slow
def test_what_ended_with_the_machine_is_stopped_before_anyone_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a reboot the first answer says stopped; where clearing away takes long it is not waited for."""

    async def work() -> None:
        engine = PretendEngine()
        async with control_plane(tmp_path, engine) as lab:
            await lab.create("box")
        engine.running.clear()
        cleared = engine.hold["stop"] = asyncio.Event()
        asyncio.get_running_loop().call_later(0.3, cleared.set)
        monkeypatch.setattr(lifecycle, "_CLEARED_WITHIN", HOUR)
        async with control_plane(tmp_path, engine) as lab:
            assert (await lab.status("box"))["status"] == "stopped"
            await lab.posted("/sandboxes/box/start")
            await lab.reaches("box", "ready")
        engine.running.clear()
        cleared.clear()
        monkeypatch.setattr(lifecycle, "_CLEARED_WITHIN", 0.1)
        async with control_plane(tmp_path, engine) as lab:
            assert (await lab.status("box"))["status"] == "stopping"
            cleared.set()
            await lab.reaches("box", "stopped")

    run(work())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "path", "found"),
    [
        ("create", None, "error"),
        ("start", "/sandboxes/box/start", "error"),
        ("stop", "/sandboxes/box/stop", "stopped"),
        ("destroy", "DELETE", None),
    ],
)
def test_a_kill_leaves_no_state_half_way(
    tmp_path: Path, call: str, path: str | None, found: str | None
) -> None:
    """Killed in the middle of a step, the next control plane ends it, or says in `error` that it was interrupted."""

    async def work() -> None:
        engine = PretendEngine()
        asking: list[asyncio.Future[Any]] = []
        lab = _lab(tmp_path, engine)
        await lab.start()
        if path is not None:
            await lab.create("box")
            if call != "stop":
                await lab.posted("/sandboxes/box/stop")
                await lab.reaches("box", "stopped")
        engine.calls.clear()
        engine.hold[call] = asyncio.Event()
        if path is None:
            await lab.client.post("/sandboxes", json={"name": "box", "public_key": KEY})
        elif path == "DELETE":
            asking.append(asyncio.ensure_future(lab.client.delete("/sandboxes/box")))
        else:
            await lab.posted(path)
        await until_called(engine, call)
        await lab.kill()
        await asyncio.gather(*asking, return_exceptions=True)
        engine.hold.clear()
        async with control_plane(tmp_path, engine) as lab:
            if found is None:

                async def gone() -> bool:
                    return (await lab.client.get("/sandboxes/box")).status_code == 404

                await until(gone)
                return
            await lab.reaches("box", found)
            if found == "error":
                assert "ended while it was being" in (await lab.status("box"))["metadata"]["reason"]
            await lab.posted("/sandboxes/box/start")
            await lab.reaches("box", "ready")

    run(work())


def _lab(tmp_path: Path, engine: PretendEngine) -> Lab:
    from irons_local.config.server import ServerConfig

    return Lab(Paths(tmp_path / "s", tmp_path / "r").create(), engine, ServerConfig(engine="pretend"))


def test_a_removal_that_fails_says_so(tmp_path: Path) -> None:
    """A sandbox that cannot be removed is there in `error` with the reason, and removing it again works."""

    async def work() -> None:
        engine = PretendEngine()
        async with control_plane(tmp_path, engine) as lab:
            await lab.create("box")
            await lab.posted("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            engine.trouble["destroy"] = EngineError("failed", "a file will not go")
            answer = await lab.client.delete("/sandboxes/box")
            assert answer.status_code == 500
            assert "a file will not go" in answer.json()["error"]
            assert (await lab.status("box"))["status"] == "error"
            assert (await lab.client.delete("/sandboxes/box")).status_code == 200

    run(work())


def test_a_state_without_work_is_no_dead_end(tmp_path: Path) -> None:
    """A state that a failing disk left half way, with no one at work on it, is left by the next start or stop."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            for left, call, reached in (
                ("stopping", "stop", "stopped"),
                ("starting", "start", "ready"),
                ("stopping", "start", "ready"),
                ("creating", "stop", "stopped"),
            ):
                await lab.store.write(partial(sandboxes.change, identity=cell, status=left))
                assert await lab.posted(f"/sandboxes/box/{call}") == 202
                await lab.reaches("box", reached)

    run(work())


@pytest.mark.parametrize("trouble", [EngineError("machine", "its service is away"), RuntimeError("a bug")])
def test_an_engine_that_fails_ends_no_control_plane(tmp_path: Path, trouble: Exception) -> None:
    """Where an engine cannot say how a sandbox ended, that one is in `error` with the reason, and the others are served."""

    async def work() -> None:
        engine = PretendEngine()
        async with control_plane(tmp_path, engine) as lab:
            made = [(await lab.create(name))["id"] for name in ("one", "two")]
        engine.running.pop(made[0])
        engine.trouble["look"] = trouble
        async with control_plane(tmp_path, engine) as lab:
            await lab.reaches("one", "error")
            assert str(trouble) in (await lab.status("one"))["metadata"]["reason"]
            await lab.reaches("two", "ready")
            await lab.posted("/sandboxes/one/start")
            await lab.reaches("one", "ready")

    run(work())


def test_an_engine_that_cannot_recover_ends_no_control_plane(tmp_path: Path) -> None:
    """Whatever an engine raises when it is to take up what runs, the API is served."""

    async def work() -> None:
        engine = PretendEngine()
        async with control_plane(tmp_path, engine) as lab:
            await lab.create("box")
        engine.trouble["recover"] = RuntimeError("a bug")
        async with control_plane(tmp_path, engine) as lab:
            await lab.reaches("box", "stopped")

    run(work())


def test_an_engine_that_does_not_answer_holds_up_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The API answers before an engine has said how a sandbox ended, and has it once it did."""
    monkeypatch.setattr(lifecycle, "_ASKED_WITHIN", 0.1)

    async def work() -> None:
        engine = PretendEngine()
        async with control_plane(tmp_path, engine) as lab:
            await lab.create("box")
        engine.running.clear()
        answers = engine.hold["look"] = asyncio.Event()
        async with control_plane(tmp_path, engine) as lab:
            assert (await lab.client.get("/sandboxes")).status_code == 200
            answers.set()
            await lab.reaches("box", "stopped")

    run(work())
