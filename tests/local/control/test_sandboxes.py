"""Sandboxes over HTTP: their states, their names, and what a crash leaves."""

from __future__ import annotations

import asyncio
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.local.control.lab import KEY, Lab, PretendEngine, control_plane, run, until

from irons_local.control.store import sandboxes
from irons_local.doctor import readiness
from irons_local.doctor.checks import DoctorCheck
from irons_local.errors import EngineError
from irons_local.linux.idmap import IdMapError
from irons_local.paths import Paths


async def _post(lab: Lab, path: str) -> int:
    return (await lab.client.post(path)).status_code


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
            assert await _post(lab, "/sandboxes/box/stop") == 202
            await lab.reaches("box", "stopped")
            assert await _post(lab, "/sandboxes/box/start") == 202
            await lab.reaches("box", "ready")
            await _post(lab, "/sandboxes/box/stop")
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
            await _post(lab, "/sandboxes/box/stop")
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
                await _post(lab, "/sandboxes/box/stop")
                await lab.reaches("box", "stopped")
                assert await _post(lab, f"/sandboxes/box/start{query}") == 202
                await lab.reaches("box", "ready")
                assert lab.engine.booted[identity] is boots
            assert await _post(lab, "/sandboxes/box/start?boot=maybe") == 400
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


BAD_NAMES = ("", "-a", "a-", "A", "a_b", "a.b", "a/b", "..", "a b", "a\n", "ä", "x" * 64, "x" * 300, "sb_0")
BAD_KEYS = (
    "",
    "# nothing\n",
    "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n",
    "ssh-ed25519",
    "ssh-ed25519 AAAA",
    f'command="id" {KEY}',
    "ssh-dss AAAAB3NzaC1kc3M=",
    f"ssh-rsa {KEY.split()[1]}",
    f"{KEY}rubbish\n",
)
BAD_MORE: tuple[tuple[dict[str, Any], str], ...] = (
    ({"rules": [{"pattern": "*.com", "list": "allow"}]}, "rules[0]: '*.com'"),
    (
        {"rules": [{"pattern": "a.test", "list": "allow"}, {"pattern": "A.test.", "list": "deny"}]},
        "rules[1]: a.test is there twice",
    ),
    ({"rules": [{"pattern": "a.test", "list": "maybe"}]}, "rules[0].list"),
    ({"rules": [{"pattern": "a.test", "list": "allow", "private": ["169.254.169.254"]}]}, "rules[0]"),
    ({"mode": "open"}, "mode"),
    ({"engine": "steam"}, "there is no engine 'steam'"),
    ({"memory": -1}, "memory"),
    ({"memory": 20 * 2**20}, "memory can't be 20 MiB: the least is 32 MiB"),
    ({"cpus": 0.01}, "cpus can't be 0.01: the least is 0.05"),
    ({"disk": 5}, "disk can't be 5 B: the least is 1 MiB"),
    ({"cpus": True}, "cpus"),
    ({"image": 7}, "image"),
    ({"note": "x" * 201}, "note is longer than 200 characters"),
    ({"colour": "red"}, "unknown member 'colour'"),
)


def test_what_cannot_be_makes_no_sandbox(tmp_path: Path) -> None:
    """A name that is not a DNS label, a key that is not one, a bad policy or limit: 400 that names it, and nothing made."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            bodies: list[tuple[dict[str, Any], str]] = [
                *(({"name": name, "public_key": KEY}, "hyphens") for name in BAD_NAMES),
                *(({"name": "box", "public_key": key}, "public_key: ") for key in BAD_KEYS),
                *(({"name": "box", "public_key": KEY, **more}, said) for more, said in BAD_MORE),
            ]
            for body, said in bodies:
                answer = await lab.client.post("/sandboxes", json=body)
                assert (answer.status_code, said in answer.json()["error"]) == (400, True), (
                    body,
                    answer.text,
                )
            assert (await lab.client.get("/sandboxes")).json() == {"sandboxes": []}
            assert not lab.engine.made

    run(work())


def test_a_name_is_taken_once(tmp_path: Path) -> None:
    """Of two creates with one name at once, one makes a sandbox and the other gets 409."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            body = {"name": "box", "public_key": KEY}
            answers = await asyncio.gather(*(lab.client.post("/sandboxes", json=body) for _ in range(5)))
            assert sorted(answer.status_code for answer in answers) == [202, 409, 409, 409, 409]

    run(work())


def test_a_policy_is_in_force_before_the_machine_starts(tmp_path: Path) -> None:
    """Mode and rules given with create are confirmed by the gateway before the engine is asked to start."""

    async def work() -> None:
        engine = PretendEngine()
        async with control_plane(tmp_path, engine) as lab:
            seen: list[Any] = []
            engine.before_start = lambda cell: seen.append(lab.policies.get(cell))
            rules = [{"pattern": "Example.test.", "list": "allow", "note": "needed"}]
            await lab.create("box", mode="deny", rules=rules)
            assert seen[0]["mode"] == "deny"
            assert [rule["pattern"] for rule in seen[0]["rules"]] == ["example.test"]

    run(work())


def test_a_create_that_fails_is_an_error_with_its_reason(tmp_path: Path) -> None:
    """An engine that cannot leaves the sandbox in `error`; it can be started again, or removed."""

    async def work() -> None:
        engine = PretendEngine(trouble={"create": EngineError("image", "no image", "build one")})
        async with control_plane(tmp_path, engine) as lab:
            await lab.client.post("/sandboxes", json={"name": "box", "public_key": KEY})
            await lab.reaches("box", "error")
            assert (await lab.status("box"))["metadata"]["reason"] == "no image (build one)"
            engine.trouble["start"] = RuntimeError("unforeseen")
            await _post(lab, "/sandboxes/box/start")
            await lab.reaches("box", "error")
            assert (await lab.status("box"))["metadata"]["reason"] == "unforeseen"
            await _post(lab, "/sandboxes/box/start")
            await lab.reaches("box", "ready")
            assert "reason" not in (await lab.status("box"))["metadata"]
            # What the first attempt may have left half made is gone before the second.
            steps = [call for call, _ in engine.calls if call in {"create", "destroy"}]
            assert steps == ["destroy", "create", "destroy", "create"]

    run(work())


def test_a_start_that_the_machine_refuses_ends_with_doctors_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the built-in engine fails and a check of doctor's does too, the reason ends with its words and its fix."""
    checked: list[Paths] = []

    def examine(places: Paths) -> tuple[DoctorCheck, ...]:
        checked.append(places)
        return (
            DoctorCheck("kernel", True, "Linux"),
            DoctorCheck("crun", False, "crun is not installed", "apt-get install crun"),
        )

    monkeypatch.setattr(readiness, "examine", examine)
    monkeypatch.setattr(readiness, "doubtful", lambda: False)

    async def work() -> None:
        engine = PretendEngine(name="namespace", trouble={"start": EngineError("failed", "it did not start")})
        async with control_plane(tmp_path, engine) as lab:
            _with_an_image(lab)
            await lab.client.post("/sandboxes", json={"name": "box", "public_key": KEY})
            await lab.reaches("box", "error")
            reason = (await lab.status("box"))["metadata"]["reason"]
            assert reason == "it did not start; crun is not installed; to fix it: apt-get install crun"
            engine.trouble["start"] = EngineError("input", "no such thing")
            await _post(lab, "/sandboxes/box/start")
            await lab.reaches("box", "error")
            # What the machine cannot have caused costs no check, and nor does a machine with an image.
            assert (await lab.status("box"))["metadata"]["reason"] == "no such thing"
            assert len(checked) == 1

    run(work())


def _with_an_image(lab: Lab) -> None:
    image = lab.places.images / "img_0"
    image.mkdir()
    about = {"id": "img_0", "name": "debian", "created_at": 1, "source": "", "os": "", "size": 1}
    (image / "image.json").write_text(json.dumps({**about, "sshd": "/sshd", "tini": ""}))


@pytest.mark.parametrize("lacking", ["crun", "ids", "namespaces"])
def test_what_the_machine_lacks_is_said_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    """Where there is an image, too, a create on a machine that lost what sandboxes need is refused in doctor's words."""
    checks = (DoctorCheck("crun", False, "crun is not installed", "apt-get install crun"),)
    monkeypatch.setattr(readiness, "examine", lambda _: checks)
    monkeypatch.setattr(
        "irons_local.doctor.readiness.shutil.which",
        lambda name, path: None if lacking == name else f"{path}/{name}",
    )
    if lacking == "ids":

        def outer_map() -> None:
            raise IdMapError("/etc/subuid gives me no range")

        monkeypatch.setattr(readiness, "outer_map", outer_map)
    if lacking == "namespaces":
        setting = tmp_path / "max_user_namespaces"
        setting.write_text("0\n")
        monkeypatch.setattr(readiness, "_MOST_NAMESPACES", setting)

    async def work() -> None:
        async with control_plane(tmp_path, PretendEngine(name="namespace")) as lab:
            _with_an_image(lab)
            answer = await lab.client.post("/sandboxes", json={"name": "box", "public_key": KEY})
            assert (answer.status_code, answer.json()) == (
                503,
                {
                    "error": "this machine cannot run sandboxes: crun is not installed",
                    "hint": "apt-get install crun",
                },
            )
            assert (await lab.client.get("/sandboxes/box")).status_code == 404
            assert "create" not in {call for call, _ in lab.engine.calls}

    run(work())


def test_an_image_that_is_not_there(tmp_path: Path) -> None:
    """It is 404, with the images that there are, and no name is taken; one of a newer irons is refused as such."""

    async def work() -> None:
        async with control_plane(tmp_path, PretendEngine(name="namespace")) as lab:
            _with_an_image(lab)
            body = {"name": "box", "public_key": KEY, "image": "nosuch"}
            answer = await lab.client.post("/sandboxes", json=body)
            assert answer.status_code == 404
            assert answer.json()["error"] == "there is no image 'nosuch'; images: debian"
            newer = lab.places.images / "img_newer"
            newer.mkdir()
            (newer / "image.json").write_text(json.dumps({"name": "nosuch", "version": 99, "layers": []}))
            answer = await lab.client.post("/sandboxes", json=body)
            assert answer.status_code == 503
            assert answer.json()["error"].startswith("a newer irons made the image nosuch")

    run(work())


def test_a_sandbox_that_could_not_be_made_takes_no_name(tmp_path: Path) -> None:
    """One that ended in `error` before it was made makes room for the next of its name; one that was made does not."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            lab.engine.trouble["create"] = EngineError("failed", "no")
            body = {"name": "box", "public_key": KEY}
            first = (await lab.client.post("/sandboxes", json=body)).json()["id"]
            await lab.reaches("box", "error")
            lab.engine.trouble["start"] = EngineError("failed", "no")
            answer = await lab.client.post("/sandboxes", json=body)
            assert answer.status_code == 202
            assert answer.json()["id"] != first
            await lab.reaches("box", "error")
            assert (await lab.client.post("/sandboxes", json=body)).status_code == 409

    run(work())


def test_wrong_states_are_conflicts(tmp_path: Path) -> None:
    """What cannot be done in a state is 409; starting what runs and stopping what is stopped change nothing."""

    async def work() -> None:
        engine = PretendEngine()
        async with control_plane(tmp_path, engine) as lab:
            await lab.create("box")
            assert await _post(lab, "/sandboxes/box/start") == 202
            assert (await lab.status("box"))["status"] == "ready"
            gate = engine.hold["stop"] = asyncio.Event()
            await _post(lab, "/sandboxes/box/stop")
            assert (await lab.status("box"))["status"] == "stopping"
            assert await _post(lab, "/sandboxes/box/start") == 409
            assert await _post(lab, "/sandboxes/box/stop") == 202
            assert (await lab.client.delete("/sandboxes/box")).status_code == 409
            gate.set()
            await lab.reaches("box", "stopped")
            assert await _post(lab, "/sandboxes/box/stop") == 202
            assert engine.calls.count(("stop", (await lab.status("box"))["id"])) == 1
            for path in ("/sandboxes/nobody/start", "/sandboxes/nobody/stop"):
                assert await _post(lab, path) == 404
            assert (await lab.client.delete("/sandboxes/nobody")).status_code == 404
            assert (await lab.client.get("/sandboxes/nobody/ssh")).status_code == 404

    run(work())


def test_what_is_being_removed_is_past_all_else(tmp_path: Path) -> None:
    """A sandbox that leaves can neither be started nor stopped, and its machine is not asked to."""

    async def work() -> None:
        engine = PretendEngine()
        async with control_plane(tmp_path, engine) as lab:
            await lab.create("box")
            await _post(lab, "/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            gate = engine.hold["destroy"] = asyncio.Event()
            engine.calls.clear()
            leaving = asyncio.ensure_future(lab.client.delete("/sandboxes/box"))
            await until(lambda: _called(engine, "destroy"))
            for path in ("/sandboxes/box/start", "/sandboxes/box/stop"):
                assert await _post(lab, path) == 409
            gate.set()
            assert (await leaving).is_success
            assert [call for call, _ in engine.calls] == ["destroy"]

    run(work())


async def _called(engine: PretendEngine, call: str) -> bool:
    return call in {each for each, _ in engine.calls}


@pytest.mark.parametrize("held", ["create", "start"])
def test_delete_ends_one_that_is_being_made(tmp_path: Path, held: str) -> None:
    """A sandbox that is not ready yet is removed without being stopped first, as a v0 client's `destroy --force` wants."""

    async def work() -> None:
        engine = PretendEngine(hold={held: asyncio.Event()})
        async with control_plane(tmp_path, engine) as lab:
            await lab.client.post("/sandboxes", json={"name": "box", "public_key": KEY})
            await until_called(engine, held)
            assert (await lab.client.delete("/sandboxes/box")).status_code == 200
            assert (await lab.client.get("/sandboxes/box")).status_code == 404
            assert not engine.made
            assert not engine.running
            engine.hold = {}
            await lab.create("box")
            assert (await lab.client.delete("/sandboxes/box")).status_code == 409

    run(work())


def test_stop_ends_a_start_where_it_is(tmp_path: Path) -> None:
    """A sandbox that is being created or started can be stopped, and started again later."""

    async def work() -> None:
        engine = PretendEngine(hold={"create": asyncio.Event()})
        async with control_plane(tmp_path, engine) as lab:
            await lab.client.post("/sandboxes", json={"name": "box", "public_key": KEY})
            status = await lab.status("box")
            assert status["status"] == "creating"
            await _post(lab, "/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            engine.hold = {"start": asyncio.Event()}
            await _post(lab, "/sandboxes/box/start")
            await until_called(engine, "start")
            await _post(lab, "/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            engine.hold = {}
            await _post(lab, "/sandboxes/box/start")
            await lab.reaches("box", "ready")

    run(work())


async def until_called(engine: PretendEngine, call: str) -> None:
    """Wait until the engine was asked something."""

    async def called() -> bool:
        return any(each == call for each, _ in engine.calls)

    await until(called)


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
            await _post(lab, "/sandboxes/box/start")
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
def test_what_ended_with_the_machine_is_stopped_before_anyone_asks(tmp_path: Path) -> None:
    """After a reboot the first answer says stopped; where clearing away takes long it is not waited for."""

    async def work() -> None:
        engine = PretendEngine()
        async with control_plane(tmp_path, engine) as lab:
            await lab.create("box")
        engine.running.clear()
        cleared = engine.hold["stop"] = asyncio.Event()
        asyncio.get_running_loop().call_later(0.3, cleared.set)
        async with control_plane(tmp_path, engine) as lab:
            assert (await lab.status("box"))["status"] == "stopped"
            await _post(lab, "/sandboxes/box/start")
            await lab.reaches("box", "ready")
        engine.running.clear()
        cleared.clear()
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
                await _post(lab, "/sandboxes/box/stop")
                await lab.reaches("box", "stopped")
        engine.calls.clear()
        engine.hold[call] = asyncio.Event()
        if path is None:
            await lab.client.post("/sandboxes", json={"name": "box", "public_key": KEY})
        elif path == "DELETE":
            asking.append(asyncio.ensure_future(lab.client.delete("/sandboxes/box")))
        else:
            await _post(lab, path)
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
            await _post(lab, "/sandboxes/box/start")
            await lab.reaches("box", "ready")

    run(work())


def _lab(tmp_path: Path, engine: PretendEngine) -> Lab:
    from irons_local.config.server import ServerConfig
    from irons_local.paths import Paths

    return Lab(Paths(tmp_path / "s", tmp_path / "r").create(), engine, ServerConfig(engine="pretend"))


def test_a_removal_that_fails_says_so(tmp_path: Path) -> None:
    """A sandbox that cannot be removed is there in `error` with the reason, and removing it again works."""

    async def work() -> None:
        engine = PretendEngine()
        async with control_plane(tmp_path, engine) as lab:
            await lab.create("box")
            await _post(lab, "/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            engine.trouble["destroy"] = EngineError("failed", "a file will not go")
            answer = await lab.client.delete("/sandboxes/box")
            assert answer.status_code == 500
            assert "a file will not go" in answer.json()["error"]
            assert (await lab.status("box"))["status"] == "error"
            assert (await lab.client.delete("/sandboxes/box")).status_code == 200

    run(work())


def test_ten_creates_at_once(tmp_path: Path) -> None:
    """Creates do not get into one another's way; each has a port of its own."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await asyncio.gather(*(lab.create(f"box-{number}") for number in range(10)))
            ports = [
                (await lab.client.get(f"/sandboxes/box-{number}/ssh")).json()["port"] for number in range(10)
            ]
            assert len(set(ports)) == 10

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
            await _post(lab, "/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            assert (await lab.client.get("/sandboxes/box/ssh")).status_code == 409
            await _post(lab, "/sandboxes/box/start")
            await lab.reaches("box", "ready")
            assert (await lab.client.get("/sandboxes/box/ssh")).json() == first

    run(work())


def test_a_taken_port_gives_way_to_another(tmp_path: Path) -> None:
    """When another program took the port of a stopped sandbox, the sandbox gets a new one, and keeps that."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("box")
            port = (await lab.client.get("/sandboxes/box/ssh")).json()["port"]
            await _post(lab, "/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            thief = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", port)
            await _post(lab, "/sandboxes/box/start")
            await lab.reaches("box", "ready")
            thief.close()
            other = (await lab.client.get("/sandboxes/box/ssh")).json()["port"]
            assert other != port
            await _post(lab, "/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            await _post(lab, "/sandboxes/box/start")
            await lab.reaches("box", "ready")
            assert (await lab.client.get("/sandboxes/box/ssh")).json()["port"] == other

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
                assert await _post(lab, f"/sandboxes/box/{call}") == 202
                await lab.reaches("box", reached)

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
            await _post(lab, "/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            answers = await asyncio.gather(*(lab.client.delete("/sandboxes/box") for _ in range(4)))
            assert {answer.status_code for answer in answers} <= {200, 404}
            assert not lab.engine.made

    run(work())


def test_labels_filter_a_list(tmp_path: Path) -> None:
    """Labels are kept, shown, and a list is narrowed by all that are named; a key alone is met by any value."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("one", labels={"team": "web", "ci": "7"})
            await lab.create("two", labels={"team": "data"})
            await lab.create("three")
            assert (await lab.status("one"))["labels"] == {"ci": "7", "team": "web"}
            assert (await lab.status("three"))["labels"] == {}
            for asked, names in (
                ("team", ["one", "two"]),
                ("team=web", ["one"]),
                ("team,ci=7", ["one"]),
                ("team=web,ci=8", []),
                ("team=", []),
            ):
                answer = await lab.client.get("/sandboxes", params={"label": asked})
                assert [each["name"] for each in answer.json()["sandboxes"]] == names

    run(work())


BAD_LABELS: tuple[Any, ...] = (
    {"": "x"},
    {"a b": "x"},
    {"a,b": "x"},
    {"-a": "x"},
    {"a": "x,y"},
    {"a": "x\n"},
    {"a": "\x1b[31m"},
    {"a": 1},
    {"a": "x" * 64},
    {"a" * 64: "x"},
    {f"k{number}": "x" for number in range(17)},
    ["a=b"],
)


@pytest.mark.parametrize("labels", BAD_LABELS, ids=lambda labels: repr(labels)[:30])
def test_labels_are_bounded(tmp_path: Path, labels: Any) -> None:
    """Labels that are too many, too long or not plain text are refused, and no name is taken."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            body = {"name": "box", "public_key": KEY, "labels": labels}
            assert (await lab.client.post("/sandboxes", json=body)).status_code == 400
            assert (await lab.client.get("/sandboxes/box")).status_code == 404

    run(work())


@pytest.mark.parametrize(
    "asked", ["", ",", "a,", "a b", "=x", "a=x\x7f", ",".join(f"k{n}" for n in range(17))]
)
def test_a_filter_by_labels_is_checked(tmp_path: Path, asked: str) -> None:
    """A filter that is not one is refused, not read as everything."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            assert (await lab.client.get("/sandboxes", params={"label": asked})).status_code == 400

    run(work())
