"""Sandboxes over HTTP: their states, their names, and what a crash leaves."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.local.control.lab import control_plane, run


def test_a_sandbox_goes_through_its_life(tmp_path: Path) -> None:
    """Create waits for ready, stop for stopped, start for ready again, and delete leaves nothing."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            made = await lab.create("box")
            assert made["id"].startswith("sb_")
            assert made["status"] == "creating"
            listed = (await lab.client.get("/sandboxes")).json()["sandboxes"]
            assert [(each["name"], each["status"]) for each in listed] == [("box", "ready")]
            assert (await lab.client.delete("/sandboxes/box")).status_code == 409
            assert (await lab.client.post("/sandboxes/box/stop")).status_code == 202
            await lab.reaches("box", "stopped")
            assert (await lab.client.post("/sandboxes/box/start")).status_code == 202
            await lab.reaches("box", "ready")
            await lab.client.post("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            assert (await lab.client.delete("/sandboxes/box")).status_code == 200
            assert (await lab.client.get("/sandboxes/box")).status_code == 404
            assert not lab.engine.made
            assert not lab.policies

    run(work())


def test_ssh_is_led_inside(tmp_path: Path) -> None:
    """The port that `ssh` answers leads to the SSH server of the sandbox, and stays the same over a restart."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("box")
            first = (await lab.client.get("/sandboxes/box/ssh")).json()
            assert first["username"] == "irons"
            assert first["host_keys"]
            assert first["cell"].startswith("sb_")
            reader, writer = await asyncio.open_connection(first["host"], first["port"])
            assert await reader.readline() == b"SSH-2.0-pretend\r\n"
            writer.write(b"x" * 1_000_000)
            writer.write_eof()
            assert len(await reader.read()) == 1_000_000
            writer.close()
            await lab.client.post("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            assert (await lab.client.get("/sandboxes/box/ssh")).status_code == 409
            await lab.client.post("/sandboxes/box/start")
            await lab.reaches("box", "ready")
            assert (await lab.client.get("/sandboxes/box/ssh")).json() == first

    run(work())
