"""Creating sandboxes over HTTP: what is refused before anything is made, and what is left where a create fails."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.local.control.lab import KEY, Lab, PretendEngine, control_plane, run, until_called

from irons_local.doctor import readiness
from irons_local.doctor.checks import DoctorCheck
from irons_local.engines.vm import qemu
from irons_local.errors import EngineError
from irons_local.linux.idmap import IdMapError
from irons_local.paths import Paths

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


def test_a_virtual_machine_without_qemu_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """503 with the line that installs it, and 400 where no machine could run in its memory; nothing is made."""
    monkeypatch.setattr(qemu, "search_path", lambda: "/nonexistent")

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            body: dict[str, Any] = {"name": "box", "public_key": KEY, "engine": "vm"}
            answer = await lab.client.post("/sandboxes", json=body)
            assert answer.status_code == 503
            assert "qemu-system-x86_64 is not installed" in answer.json()["error"]
            answer = await lab.client.post("/sandboxes", json={**body, "memory": 64 << 20})
            assert (answer.status_code, "the least is 256 MiB" in answer.json()["error"]) == (400, True)
            assert (await lab.client.get("/sandboxes")).json() == {"sandboxes": []}

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
            await lab.posted("/sandboxes/box/start")
            await lab.reaches("box", "error")
            assert (await lab.status("box"))["metadata"]["reason"] == "unforeseen"
            await lab.posted("/sandboxes/box/start")
            await lab.reaches("box", "ready")
            assert "reason" not in (await lab.status("box"))["metadata"]
            # What the first attempt may have left half made is gone before the second.
            steps = [call for call, _ in engine.calls if call in {"create", "destroy"}]
            assert steps == ["destroy", "create", "destroy", "create"]

    run(work())


def test_a_start_whose_rules_the_gateway_refuses(tmp_path: Path) -> None:
    """The reason says what was not done and why, and speaks of no change."""

    async def work() -> None:
        async with control_plane(tmp_path, PretendEngine()) as lab:
            lab.gateway.refuses = "the disk is full; free some space"
            await lab.client.post("/sandboxes", json={"name": "box", "public_key": KEY})
            await lab.reaches("box", "error")
            reason = (await lab.status("box"))["metadata"]["reason"]
            assert reason == f"its rules could not be made active: the gateway refused: {lab.gateway.refuses}"
            told = (await lab.client.get("/sandboxes/box/ssh")).json()
            assert told["error"] == "box is in the state error; SSH answers when it is ready"
            lab.gateway.refuses = ""
            await lab.posted("/sandboxes/box/start")
            await lab.reaches("box", "ready")

    run(work())


def test_a_start_that_the_machine_refuses_ends_with_doctors_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the built-in engine fails and a check of doctor's does too, the reason ends with its words and its fix."""
    checked: list[Paths] = []

    def examine(paths: Paths) -> tuple[DoctorCheck, ...]:
        checked.append(paths)
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
            await lab.posted("/sandboxes/box/start")
            await lab.reaches("box", "error")
            # What the machine cannot have caused costs no check, and nor does a machine with an image.
            assert (await lab.status("box"))["metadata"]["reason"] == "no such thing"
            assert len(checked) == 1

    run(work())


def _with_an_image(lab: Lab) -> None:
    image = lab.paths.images / "img_0"
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
            newer = lab.paths.images / "img_newer"
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
