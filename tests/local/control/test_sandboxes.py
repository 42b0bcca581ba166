"""Sandboxes over HTTP: their states, what is told of them, and calls that cross."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from tests.local.control.lab import KEY, PretendEngine, control_plane, run, until, until_called


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
            assert await lab.posted("/sandboxes/box/stop") == 202
            await lab.reaches("box", "stopped")
            assert await lab.posted("/sandboxes/box/start") == 202
            await lab.reaches("box", "ready")
            await lab.posted("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            assert (await lab.client.delete("/sandboxes/box")).status_code == 200
            assert (await lab.client.get("/sandboxes/box")).status_code == 404
            assert not lab.engine.made
            assert not lab.policies

    run(work())


def test_an_answer_is_held_while_a_sandbox_is_worked_on(tmp_path: Path) -> None:
    """With `wait` one question is enough; where nothing is done for the sandbox, or for too long, the answer comes all the same."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            made = await lab.client.post("/sandboxes", json={"name": "box", "public_key": KEY})
            assert made.json()["status"] == "creating"
            for _ in range(2):
                told = (await lab.client.get("/sandboxes/box?wait=20")).json()
                assert told["status"] == "ready"
            assert (await lab.client.get("/sandboxes/box?wait=21")).status_code == 400
            lab.engine.hold["stop"] = asyncio.Event()
            await lab.posted("/sandboxes/box/stop")
            told = (await lab.client.get("/sandboxes/box?wait=0.01")).json()
            assert told["status"] == "stopping"
            lab.engine.hold["stop"].set()
            assert (await lab.client.get("/sandboxes/box?wait=20")).json()["status"] == "stopped"

    run(work())


@pytest.mark.slow
def test_a_start_without_boot_is_asked_for(tmp_path: Path) -> None:
    """`boot=false` reaches the engine, for that start alone; what a boot printed is text, no matter what bytes it was."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            identity = (await lab.create("box"))["id"]
            for query, boots in (("?boot=false", False), ("", True)):
                await lab.posted("/sandboxes/box/stop")
                await lab.reaches("box", "stopped")
                assert await lab.posted(f"/sandboxes/box/start{query}") == 202
                await lab.reaches("box", "ready")
                assert lab.engine.booted[identity] is boots
            assert await lab.posted("/sandboxes/box/start?boot=maybe") == 400
            answer = await lab.client.get("/sandboxes/box/boot")
            assert answer.json() == {"output": f"boot of {identity}\nbad \N{REPLACEMENT CHARACTER}\n"}
            assert (await lab.client.get("/sandboxes/none/boot")).status_code == 404

    run(work())


def test_status_says_what_a_sandbox_is(tmp_path: Path) -> None:
    """Metadata has texts only, with engine, image, port, limits, mode and what the engine says; times are RFC 3339."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("box", image="slim", cpus=1.5, memory=2**30, mode="deny")
            status = await lab.status("box")
            metadata = status["metadata"]
            assert all(isinstance(value, str) for value in metadata.values())
            assert metadata["engine"] == "pretend"
            assert metadata["image"] == "slim"
            assert metadata["cpus"] == "1.5"
            assert metadata["memory"] == str(2**30)
            assert (metadata["mode"], metadata["egress"]) == ("deny", "deny")
            assert metadata["addresses"] == "100.64.0.2"
            assert int(metadata["ssh_port"]) > 1024
            assert status["created_at"].endswith("Z")
            limits = lab.engine.made[status["id"]].limits
            assert (limits.cpus, limits.memory, limits.disk) == (1.5, 2**30, None)

    run(work())


def test_a_note_is_kept_and_cleaned(tmp_path: Path) -> None:
    """A note is in the status and the list, on one line, without what a terminal would obey; it outlives the process."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("box", note=" one\ntwo \x1b[31mred\u202e ")
            await lab.create("bare")
        async with control_plane(tmp_path, lab.engine) as lab:
            assert (await lab.status("box"))["note"] == "one two [31mred"
            listed = (await lab.client.get("/sandboxes")).json()["sandboxes"]
            assert [each.get("note") for each in listed] == [None, "one two [31mred"]

    run(work())


def test_wrong_states_are_conflicts(tmp_path: Path) -> None:
    """What cannot be done in a state is 409; starting what runs and stopping what is stopped change nothing."""

    async def work() -> None:
        engine = PretendEngine()
        async with control_plane(tmp_path, engine) as lab:
            await lab.create("box")
            assert await lab.posted("/sandboxes/box/start") == 202
            assert (await lab.status("box"))["status"] == "ready"
            gate = engine.hold["stop"] = asyncio.Event()
            await lab.posted("/sandboxes/box/stop")
            assert (await lab.status("box"))["status"] == "stopping"
            assert await lab.posted("/sandboxes/box/start") == 409
            assert await lab.posted("/sandboxes/box/stop") == 202
            assert (await lab.client.delete("/sandboxes/box")).status_code == 409
            gate.set()
            await lab.reaches("box", "stopped")
            assert await lab.posted("/sandboxes/box/stop") == 202
            assert engine.calls.count(("stop", (await lab.status("box"))["id"])) == 1
            for path in ("/sandboxes/nobody/start", "/sandboxes/nobody/stop"):
                assert await lab.posted(path) == 404
            assert (await lab.client.delete("/sandboxes/nobody")).status_code == 404
            assert (await lab.client.get("/sandboxes/nobody/ssh")).status_code == 404

    run(work())


def test_what_is_being_removed_is_past_all_else(tmp_path: Path) -> None:
    """A sandbox that leaves can neither be started nor stopped, and its machine is not asked to."""

    async def work() -> None:
        engine = PretendEngine()
        async with control_plane(tmp_path, engine) as lab:
            await lab.create("box")
            await lab.posted("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            gate = engine.hold["destroy"] = asyncio.Event()
            engine.calls.clear()
            leaving = asyncio.ensure_future(lab.client.delete("/sandboxes/box"))
            await until_called(engine, "destroy")
            for path in ("/sandboxes/box/start", "/sandboxes/box/stop"):
                assert await lab.posted(path) == 409
            gate.set()
            assert (await leaving).is_success
            assert [call for call, _ in engine.calls] == ["destroy"]

    run(work())


def test_stop_ends_a_start_where_it_is(tmp_path: Path) -> None:
    """A sandbox that is being created or started can be stopped, and started again later."""

    async def work() -> None:
        engine = PretendEngine(hold={"create": asyncio.Event()})
        async with control_plane(tmp_path, engine) as lab:
            await lab.client.post("/sandboxes", json={"name": "box", "public_key": KEY})
            status = await lab.status("box")
            assert status["status"] == "creating"
            await lab.posted("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            engine.hold = {"start": asyncio.Event()}
            await lab.posted("/sandboxes/box/start")
            await until_called(engine, "start")
            await lab.posted("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            engine.hold = {}
            await lab.posted("/sandboxes/box/start")
            await lab.reaches("box", "ready")

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
            await lab.posted("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            assert (await lab.client.get("/sandboxes/box/ssh")).status_code == 409
            await lab.posted("/sandboxes/box/start")
            await lab.reaches("box", "ready")
            assert (await lab.client.get("/sandboxes/box/ssh")).json() == first

    run(work())


def test_a_taken_port_gives_way_to_another(tmp_path: Path) -> None:
    """When another program took the port of a stopped sandbox, the sandbox gets a new one, and keeps that."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("box")
            port = (await lab.client.get("/sandboxes/box/ssh")).json()["port"]
            await lab.posted("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            thief = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", port)
            await lab.posted("/sandboxes/box/start")
            await lab.reaches("box", "ready")
            thief.close()
            other = (await lab.client.get("/sandboxes/box/ssh")).json()["port"]
            assert other != port
            await lab.posted("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            await lab.posted("/sandboxes/box/start")
            await lab.reaches("box", "ready")
            assert (await lab.client.get("/sandboxes/box/ssh")).json()["port"] == other

    run(work())


@pytest.mark.slow
def test_calls_for_one_sandbox_at_once_do_not_cross(tmp_path: Path) -> None:
    """Starts, stops and removals that come at the same moment leave one of the states they ask for, and one machine."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            cell = (await lab.create("box"))["id"]
            for _ in range(5):
                calls = [lab.client.post(f"/sandboxes/box/{call}") for call in ("stop", "start") * 5]
                answers = await asyncio.gather(*calls)
                assert {answer.status_code for answer in answers} <= {202, 409}

                async def rests() -> bool:
                    return (await lab.status("box"))["status"] in ("ready", "stopped")

                await until(rests)
                running = (await lab.status("box"))["status"] == "ready"
                assert (cell in lab.engine.running) == running
            await lab.posted("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            answers = await asyncio.gather(*(lab.client.delete("/sandboxes/box") for _ in range(4)))
            assert {answer.status_code for answer in answers} <= {200, 404}
            assert not lab.engine.made

    run(work())
