"""Sandboxes that end with their clients: held by an open request, given a minute without one, then destroyed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import httpx
import pytest
from tests.local.control.lab import KEY, Lab, control_plane, run, until

SHORT = 0.05
"""Seconds, in the place of the minute."""
HOUR = 3600.0
"""The same where it must not end, however slow the machine is."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request holds for as long as it asks for."""
    monkeypatch.setattr("irons_local.control.sandbox.holds.ANSWERED_AFTER", HOUR)


async def made(lab: Lab, grace: float = SHORT) -> None:
    """Make `box`, which ends with its client."""
    lab.server.plane.holds._grace = grace
    body = {"name": "box", "public_key": KEY, "held": True}
    assert (await lab.client.post("/sandboxes", json=body)).status_code == 202


async def gone(lab: Lab) -> bool:
    """Whether there is no `box`."""
    return (await lab.client.get("/sandboxes/box")).status_code == 404


async def held(lab: Lab, seconds: float) -> httpx.Response:
    """Hold `box`."""
    return await lab.client.post("/sandboxes/box/hold", params={"wait": str(seconds)})


def test_what_nobody_holds_is_destroyed(tmp_path: Path) -> None:
    """A client that never comes, as one that was killed at once, leaves nothing."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await made(lab)
            await until(lambda: gone(lab))
            assert not lab.engine.made
            assert (await held(lab, 0)).status_code == 404

    run(work())


@pytest.mark.slow
def test_it_lives_while_a_request_is_open(tmp_path: Path) -> None:
    """However short the grace is, an open request holds it, and so does the next within the grace."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await made(lab, grace=HOUR)
            first = asyncio.ensure_future(held(lab, 1))
            await until(lambda: _open(lab))
            lab.server.plane.holds._grace = SHORT
            assert (await first).json() == {"held": True}
            await until(lambda: gone(lab))

    run(work())


async def _open(lab: Lab) -> bool:
    return bool(lab.server.plane.holds._open)


@pytest.mark.parametrize("way", ["close", "half"])
def test_a_client_that_is_gone_is_noticed_at_once(tmp_path: Path, way: str) -> None:
    """A closed connection, as of a client that was killed, ends the hold though its answer is due much later."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await made(lab, grace=HOUR)
            reader, writer = await asyncio.open_unix_connection(lab.paths.api_socket)
            writer.write(
                b"POST /sandboxes/box/hold?wait=3600 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
            )
            await until(lambda: _open(lab))
            lab.server.plane.holds._grace = SHORT
            if way == "half":
                writer.write_eof()
                assert b'"held": true' in await reader.read()
            writer.close()
            await until(lambda: gone(lab))

    run(work())


def test_a_released_sandbox_lives_on(tmp_path: Path) -> None:
    """What is released answers who holds it, and stays; holding it again is a conflict."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await made(lab, grace=HOUR)
            holding = asyncio.ensure_future(held(lab, 3600))
            await until(lambda: _open(lab))
            assert (await lab.client.delete("/sandboxes/box/hold")).status_code == 200
            assert (await holding).json() == {"held": False}
            assert (await lab.client.delete("/sandboxes/box/hold")).status_code == 200
            assert (await held(lab, 0)).status_code == 409
            lab.server.plane.holds.begin((await lab.status("box"))["id"])
            await lab.reaches("box", "ready")
            await lab.client.post("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            assert (await lab.client.delete("/sandboxes/box")).status_code == 200
            assert (await lab.client.delete("/sandboxes/box/hold")).status_code == 404

    run(work())


def test_another_control_plane_takes_over(tmp_path: Path) -> None:
    """After a kill of the control plane a client has its minute; where it does not come, the sandbox is destroyed."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await made(lab, grace=HOUR)
            await lab.reaches("box", "ready")
            await lab.kill()
            await lab.start()
            assert (await held(lab, 0)).json() == {"held": True}
            holds = lab.server.plane.holds
            await holds.close()
            holds._grace = SHORT
            await holds.resume()
            await until(lambda: gone(lab))

    run(work())


def test_a_destroyed_sandbox_is_no_longer_held(tmp_path: Path) -> None:
    """A client that destroys it itself leaves no row, and no timer that fails."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await made(lab, grace=HOUR)
            await lab.reaches("box", "ready")
            await lab.client.post("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            assert (await lab.client.delete("/sandboxes/box")).status_code == 200
            rows = await lab.store.read(
                lambda connection: connection.execute("SELECT * FROM holds").fetchall()
            )
            assert rows == []
            await lab.create("box")
            assert (await held(lab, 0)).status_code == 409

    run(work())


def test_an_engine_that_fails_to_stop_is_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something would not go, it is tried until it does."""
    monkeypatch.setattr("irons_local.control.sandbox.holds._AGAIN", SHORT)

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await made(lab, grace=HOUR)
            await lab.reaches("box", "ready")
            lab.engine.trouble["destroy"] = OSError("busy")
            holds = lab.server.plane.holds
            await holds.close()
            holds._grace = SHORT
            await holds.resume()
            await until(lambda: gone(lab))

    run(work())


def test_a_fork_that_nobody_holds_is_destroyed(tmp_path: Path) -> None:
    """Copies may end with their client, as a sandbox may; the original does not."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create(name="parent")
            await lab.reaches("parent", "ready")
            lab.server.plane.holds._grace = SHORT
            body = {"names": ["box", "second"], "held": True}
            answer = await lab.client.post("/sandboxes/parent/fork", json=body)
            assert answer.status_code == 202, answer.text
            await until(lambda: gone(lab))

            async def alone() -> bool:
                return (await lab.client.get("/sandboxes/second")).status_code == 404

            await until(alone)
            assert (await lab.status("parent"))["status"] == "ready"

    run(work())
