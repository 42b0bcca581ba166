"""Keys that open a sandbox, changed over the API: recorded, handed to the engine, and never all gone."""

from __future__ import annotations

from pathlib import Path

from tests.local.control.lab import KEY, control_plane, run

from irons_local.bundle.sshd import key_id
from irons_local.errors import EngineError

OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAxUWgVfXYXqyGIWSsTNp8Nm8XNPn5pUOq3ZMh5W1r9C other@example\n"
PATH = "/sandboxes/box/access"


def test_keys_are_added_and_removed(tmp_path: Path) -> None:
    """What is listed is what the engine got, and it is the same after a restart of the control plane."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            box = (await lab.create())["id"]
            answer = await lab.client.post(PATH, json={"public_key": OTHER})
            assert [key["comment"] for key in answer.json()["keys"]] == ["somebody@example", "other@example"]
            assert lab.engine.admitted[box] == (KEY + OTHER, ())
            again = await lab.client.post(PATH, json={"public_key": OTHER.replace("other", "another")})
            assert again.json() == answer.json()
            first = answer.json()["keys"][0]
            assert first["fingerprint"].startswith("SHA256:")
            gone = await lab.client.delete(f"{PATH}/{first['id']}")
            assert [key["comment"] for key in gone.json()["keys"]] == ["other@example"]
            assert lab.engine.admitted[box] == (OTHER, (key_id(KEY),))
            assert (await lab.client.get(PATH)).json() == gone.json()
        async with control_plane(tmp_path, lab.engine) as lab:
            assert (await lab.client.get(PATH)).json() == gone.json()

    run(work())


def test_what_would_lock_everybody_out_is_refused(tmp_path: Path) -> None:
    """The last key stays; a key that is not there, a private key and a sandbox that is not there are refused."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create()
            last = await lab.client.delete(f"{PATH}/{key_id(KEY)}")
            assert (last.status_code, "only key" in last.json()["error"]) == (409, True)
            assert (await lab.client.delete(f"{PATH}/{key_id(OTHER)}")).status_code == 404
            private = await lab.client.post(PATH, json={"public_key": "-----BEGIN OPENSSH PRIVATE KEY-----"})
            assert private.status_code == 400
            assert (await lab.client.get("/sandboxes/none/access")).status_code == 404
            assert not lab.engine.admitted

    run(work())


def test_an_engine_that_fails_is_told_of(tmp_path: Path) -> None:
    """The change is recorded, the answer says that it is not active yet, and the next change activates it."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            box = (await lab.create())["id"]
            lab.engine.trouble["admit"] = EngineError("failed", "no room")
            answer = await lab.client.post(PATH, json={"public_key": OTHER})
            assert (answer.status_code, "not yet active: no room" in answer.json()["error"]) == (500, True)
            await lab.client.post(PATH, json={"public_key": OTHER})
            assert lab.engine.admitted[box] == (KEY + OTHER, ())

    run(work())


def test_an_engine_that_cannot_change_keys_says_so(tmp_path: Path) -> None:
    """An engine of a third party may lack it; then nothing is recorded."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create()
            lab.server.plane.lifecycle._engines = {"pretend": object()}  # type: ignore[dict-item]
            answer = await lab.client.post(PATH, json={"public_key": OTHER})
            assert (answer.status_code, "cannot change" in answer.json()["error"]) == (400, True)
            assert len((await lab.client.get(PATH)).json()["keys"]) == 1
            lab.server.plane.lifecycle._engines = {"pretend": lab.engine}

    run(work())
