"""Snapshots and copies over the API: what is recorded, what a copy gets, what is refused, and what a crash leaves."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from tests.local.control.lab import KEY, Lab, control_plane, run, until

from irons_local import times
from irons_local.control.sandbox.copies import _check_memory
from irons_local.control.schema.errors import HttpError
from irons_local.control.store import snapshots
from irons_local.control.store.terms import SECOND
from irons_local.engines.vm import limits as vm_limits
from irons_local.errors import EngineError
from irons_local.limits import Limits

OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAxUWgVfXYXqyGIWSsTNp8Nm8XNPn5pUOq3ZMh5W1r9C other@example\n"
RULES = [
    {"pattern": "good.example", "list": "allow"},
    {"pattern": "bad.example", "list": "deny"},
]


async def snapshot(lab: Lab, **body: Any) -> dict[str, Any]:
    """Make a snapshot of `box`."""
    answer = await lab.client.post("/sandboxes/box/snapshots", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def listed(lab: Lab) -> list[str]:
    """Names of the snapshots."""
    return [each["name"] for each in (await lab.client.get("/snapshots")).json()["snapshots"]]


async def patterns(lab: Lab, name: str) -> dict[str, str]:
    """The rules of a sandbox's own, and under "" its mode."""
    found = (await lab.client.get(f"/sandboxes/{name}/egress")).json()
    return {"": found["mode"], **{rule["pattern"]: rule["list"] for rule in found["rules"]}}


def test_snapshots_are_made_listed_and_removed(tmp_path: Path) -> None:
    """A running sandbox's has its pause, a stopped one's has none; names are given where none is asked for, and logged."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            box = (await lab.create())["id"]
            first = await snapshot(lab, note="before\nthe upgrade")
            assert (first["name"], first["pause"], first["sandbox_id"]) == ("box-1", 0.25, box)
            assert first["note"] == "before the upgrade"
            await lab.client.post("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            assert (await snapshot(lab, name="clean"))["pause"] is None
            assert lab.engine.snapshots == {first["id"]: "box-1", (await snapshot(lab))["id"]: "box-2"} | {
                key: name for key, name in lab.engine.snapshots.items() if name == "clean"
            }
            assert await listed(lab) == ["box-1", "clean", "box-2"]
            assert (await lab.client.delete("/snapshots/box-1")).status_code == 200
            assert await listed(lab) == ["clean", "box-2"]
            assert first["id"] not in lab.engine.snapshots
            assert (await lab.client.delete("/snapshots/box-1")).status_code == 404
            changes = (await lab.client.get("/audit/changes")).json()["changes"]
            told = [
                (each["what"], each["subject"]) for each in changes if each["what"].startswith("snapshot")
            ]
            made, gone = "snapshot-made", "snapshot-removed"
            assert told == [(made, "box-1"), (made, "clean"), (made, "box-2"), (gone, "box-1")]
        async with control_plane(tmp_path, lab.engine) as again:
            of_box = (await again.client.get("/sandboxes/box/snapshots")).json()["snapshots"]
            assert [each["name"] for each in of_box] == ["clean", "box-2"]

    run(work())


def test_a_copy_has_the_parents_policy_before_it_starts(tmp_path: Path) -> None:
    """Mode, rules, keys and limits are the parent's, variables and labels are not, and what is given replaces them."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create(
                mode="deny",
                rules=RULES,
                cpus=2,
                labels={"team": "web"},
                environment={"SECRET": "x"},
                note="n",
            )
            await lab.client.post("/sandboxes/box/access", json={"public_key": OTHER})
            parent = await patterns(lab, "box")
            active: list[dict[str, Any]] = []
            lab.engine.before_start = lambda sandbox: active.append(lab.policies[sandbox])
            answer = await lab.client.post("/sandboxes/box/fork", json={"names": ["one", "two"]})
            assert answer.status_code == 202, answer.text
            assert answer.json()["pause"] == 0.25
            for name in ("one", "two"):
                await lab.reaches(name, "ready")
                assert (
                    await patterns(lab, name)
                    == parent
                    == {"": "deny", "good.example": "allow", "bad.example": "deny"}
                )
                found = await lab.status(name)
                assert (found["labels"], found["metadata"]["cpus"], found.get("note")) == ({}, "2.0", None)
                spec = lab.engine.made[found["id"]]
                assert (spec.public_key, spec.environment, spec.name) == (KEY + OTHER, {}, name)
                assert spec.snapshot.startswith("sn_")
            assert [policy["mode"] for policy in active] == ["deny", "deny"]

            async def swept() -> bool:
                return not lab.engine.snapshots

            await until(swept)
            assert await listed(lab) == []
            body = {
                "names": ["three"],
                "mode": "warn",
                "rules": [{"pattern": "new.example", "list": "allow"}],
            }
            assert (await lab.client.post("/sandboxes/box/fork", json=body)).status_code == 202
            await lab.reaches("three", "ready")
            assert await patterns(lab, "three") == {"": "warn", "new.example": "allow", "bad.example": "deny"}
            assert await patterns(lab, "box") == parent

    run(work())


def test_a_sandbox_starts_from_a_snapshot(tmp_path: Path) -> None:
    """It has the rules of then, the keys of then and the one it is created with, and options of its own."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create(mode="deny", rules=RULES, memory=1 << 30)
            await snapshot(lab, name="then")
            await lab.client.put("/sandboxes/box/egress", json={"rules": []})
            await lab.client.post("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            await lab.client.delete("/sandboxes/box")
            body = {"name": "copy", "public_key": OTHER, "snapshot": "then", "cpus": 1, "labels": {"a": "b"}}
            answer = await lab.client.post("/sandboxes", json=body)
            assert answer.status_code == 202, answer.text
            await lab.reaches("copy", "ready")
            found = await lab.status("copy")
            spec = lab.engine.made[found["id"]]
            assert (spec.public_key, spec.limits.memory, spec.limits.cpus) == (KEY + OTHER, 1 << 30, 1)
            assert found["labels"] == {"a": "b"}
            assert await patterns(lab, "copy") == {"": "deny", "good.example": "allow", "bad.example": "deny"}
            created = (await lab.client.get("/sandboxes/copy/audit/changes")).json()["changes"][0]
            assert (created["what"], created["after"]["from"]) == ("sandbox-created", "then")

    run(work())


def test_timed_rules_keep_their_end(tmp_path: Path) -> None:
    """A copy has the rest of a rule's time, and nothing of what was allowed until its original stops."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            timed = [
                {
                    "pattern": "hour.example",
                    "list": "allow",
                    "until": times.rfc3339(times.now() + 3600 * SECOND),
                },
                {"pattern": "run.example", "list": "allow", "until": "stop"},
                {"pattern": "never.example", "list": "deny", "until": "stop"},
            ]
            await lab.create(rules=timed)
            await lab.client.post("/sandboxes/box/fork", json={"names": ["copy"]})
            await lab.reaches("copy", "ready")
            found = {
                name: {
                    rule["pattern"]: rule.get("until")
                    for rule in (await lab.client.get(f"/sandboxes/{name}/egress")).json()["rules"]
                }
                for name in ("box", "copy")
            }
            assert found["box"].pop("run.example") == "stop"
            assert found["copy"] == found["box"]

    run(work())


def test_bad_input_is_refused_in_one_line(tmp_path: Path) -> None:
    """A name taken, a state that does not allow it, a snapshot that is not there or of another: nothing changes."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create()
            await lab.create("other")
            await snapshot(lab, name="then")

            async def refused(status: int, words: str, method: str, path: str, body: Any = None) -> None:
                answer = await lab.client.request(method, path, json=body)
                error = answer.json()["error"]
                assert (answer.status_code, words in error, "\n" in error) == (status, True, False), error

            post, delete = "POST", "DELETE"
            await refused(
                409, "there is a snapshot named 'then'", post, "/sandboxes/box/snapshots", {"name": "then"}
            )
            await refused(400, "a snapshot name is", post, "/sandboxes/box/snapshots", {"name": "Not-One-"})
            await refused(404, "no sandbox is named", post, "/sandboxes/none/snapshots", {})
            await refused(
                409, "is ready; stop it first", post, "/sandboxes/box/restore", {"snapshot": "then"}
            )
            await refused(
                404,
                "no snapshot 'none'; snapshots: then",
                post,
                "/sandboxes/box/restore",
                {"snapshot": "none"},
            )
            await refused(
                409, "a snapshot of box, not of other", post, "/sandboxes/other/restore", {"snapshot": "then"}
            )
            await refused(404, "no snapshot 'none'", delete, "/snapshots/none")
            await refused(
                409, "named 'other' already", post, "/sandboxes/box/fork", {"names": ["new", "other"]}
            )
            await refused(400, "there twice", post, "/sandboxes/box/fork", {"names": ["new", "new"]})
            await refused(400, "names: there is none", post, "/sandboxes/box/fork", {"names": []})
            image = {"name": "new", "public_key": KEY, "snapshot": "then", "image": "x"}
            await refused(400, "leave image out", post, "/sandboxes", image)
            await lab.client.put("/sandboxes/box/egress", json={"rules": RULES})
            allowed = {"names": ["new"], "rules": [{"pattern": "bad.example", "list": "allow"}]}
            await refused(400, "box denies bad.example", post, "/sandboxes/box/fork", allowed)
            lab.engine.trouble["capture"] = EngineError(
                "limit", "the disk is full: the snapshot does not fit"
            )
            await refused(503, "box: the disk is full", post, "/sandboxes/box/snapshots", {})
            assert sorted(
                each["name"] for each in (await lab.client.get("/sandboxes")).json()["sandboxes"]
            ) == ["box", "other"]
            assert (await listed(lab), list(lab.engine.snapshots.values())) == (["then"], ["then"])
            lab.server.plane.copies._engines = {"pretend": object()}  # type: ignore[dict-item]
            await refused(400, "makes no snapshots", post, "/sandboxes/box/snapshots", {})

    run(work())


def test_a_snapshot_in_use_stays(tmp_path: Path) -> None:
    """While a sandbox is being made from it, it is not removed; nor is that of a fork whose copy failed, until that is gone."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create()
            await snapshot(lab, name="then")
            lab.engine.hold["create"] = asyncio.Event()
            await lab.client.post("/sandboxes", json={"name": "copy", "public_key": KEY, "snapshot": "then"})
            answer = await lab.client.delete("/snapshots/then")
            assert (answer.status_code, "copy is being made from it" in answer.json()["error"]) == (409, True)
            lab.engine.hold.pop("create").set()
            await lab.reaches("copy", "ready")
            assert (await lab.client.delete("/snapshots/then")).status_code == 200
            lab.engine.trouble["create"] = EngineError("failed", "no room")
            await lab.client.post("/sandboxes/box/fork", json={"names": ["failing"]})
            await lab.reaches("failing", "error")
            assert len(lab.engine.snapshots) == 1
            await lab.client.post("/sandboxes/failing/start")
            await lab.reaches("failing", "ready")
        async with control_plane(tmp_path, lab.engine) as again:
            assert again.engine.snapshots == {}

    run(work())


def test_what_a_failed_fork_left_goes_with_the_next(tmp_path: Path) -> None:
    """The snapshot of a fork whose copy failed and was destroyed is removed after the next fork, not only at the next start."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create()
            lab.engine.trouble["create"] = EngineError("failed", "no room")
            await lab.client.post("/sandboxes/box/fork", json={"names": ["failing"]})
            await lab.reaches("failing", "error")
            await lab.client.delete("/sandboxes/failing")

            async def left() -> bool:
                return len(lab.engine.snapshots) == 1

            await until(left)
            await lab.client.post("/sandboxes/box/fork", json={"names": ["fine"]})
            await lab.reaches("fine", "ready")

            async def swept() -> bool:
                return not lab.engine.snapshots

            await until(swept)

    run(work())


def test_what_was_made_meanwhile_is_not_swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A snapshot that was being made when the sweep began, and is there when it comes to it, stays."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create()
            await snapshot(lab)
            plane = lab.server.plane
            (kept,) = await plane.store.read(snapshots.all_of)
            looks: list[int] = []

            def seen(connection: Any) -> list[Any]:
                looks.append(1)
                return [kept] if len(looks) == 1 else []

            monkeypatch.setattr(snapshots, "left_over", seen)
            await plane.copies.sweep()
            assert len(looks) == 2
            assert len(lab.engine.snapshots) == 1

    run(work())


def test_a_snapshot_that_goes_before_the_copy_is_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy whose snapshot was removed after its policy was composed is refused; no sandbox is left that can never start."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create()
            await snapshot(lab, name="then")
            origin = lab.server.plane.copies.origin

            async def removed(name: str) -> Any:
                found = await origin(name)
                await lab.server.plane.copies.remove(name)
                return found

            monkeypatch.setattr(lab.server.plane.copies, "origin", removed)
            body = {"name": "copy", "public_key": KEY, "snapshot": "then"}
            answer = await lab.client.post("/sandboxes", json=body)
            assert (answer.status_code, "no snapshot" in answer.json()["error"]) == (404, True)
            assert [each["name"] for each in (await lab.client.get("/sandboxes")).json()["sandboxes"]] == [
                "box"
            ]

    run(work())


@pytest.mark.parametrize("step", ["restore", "kept"])
def test_a_restore_that_fails_before_it_replaces_anything_leaves_no_snapshot(
    step: str, tmp_path: Path
) -> None:
    """The engine may have kept the files by then: it is asked to remove them with the row."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create()
            kept = await snapshot(lab, name="then")
            await lab.client.post("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            lab.engine.trouble[step] = OSError(28, "No space left on device")
            answer = await lab.client.post("/sandboxes/box/restore", json={"snapshot": "then"})
            assert (answer.status_code, answer.json()["error"].splitlines()[0]) == (
                500,
                "box: No space left on device",
            )
            assert (await listed(lab), lab.engine.snapshots) == (["then"], {kept["id"]: "then"})

    run(work())


def test_a_restore_that_fails_at_its_end_keeps_the_files(tmp_path: Path) -> None:
    """They may be replaced by then: what they were is a snapshot, which the error names."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create()
            kept = await snapshot(lab, name="then")
            await lab.client.post("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            lab.engine.trouble["replace"] = OSError(28, "No space left on device")
            answer = await lab.client.post("/sandboxes/box/restore", json={"snapshot": "then"})
            assert (answer.status_code, answer.json()["error"].splitlines()[0]) == (
                500,
                "box, whose files are kept as box-1: No space left on device",
            )
            assert await listed(lab) == ["then", "box-1"]
            assert sorted(lab.engine.snapshots.values()) == ["box-1", "then"]
            assert lab.engine.snapshots[kept["id"]] == "then"

    run(work())


def test_a_kill_while_files_are_replaced_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next control plane finds the snapshot of what they were, whole and in the list."""
    # It gives the request that is under way no time to end.
    monkeypatch.setattr("irons_local.control.http.listeners._GRACE", 0.01)

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            box = (await lab.create())["id"]
            await snapshot(lab, name="then")
            await lab.client.post("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            lab.engine.hold["replace"] = asyncio.Event()
            request = lab.client.post("/sandboxes/box/restore", json={"snapshot": "then"})
            restoring = asyncio.create_task(request)

            async def began() -> bool:
                return ("replace", box) in lab.engine.calls

            await until(began)
            restoring.cancel()
        lab.engine.hold.clear()
        async with control_plane(tmp_path, lab.engine) as again:
            assert await listed(again) == ["then", "box-1"]
            assert sorted(again.engine.snapshots.values()) == ["box-1", "then"]

    run(work())


def test_a_restore_keeps_what_it_replaces(tmp_path: Path) -> None:
    """The files as they were are a snapshot with a note, and neither rules nor mode come back."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            box = (await lab.create(mode="warn", rules=RULES))["id"]
            await snapshot(lab, name="then")
            await lab.client.put("/sandboxes/box/egress", json={"rules": [], "mode": "deny"})
            await lab.client.post("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            answer = await lab.client.post("/sandboxes/box/restore", json={"snapshot": "then"})
            assert (answer.status_code, answer.json()["name"]) == (200, "box-1")
            assert answer.json()["note"] == "before it was restored from then"
            assert await patterns(lab, "box") == {"": "deny"}
            assert ("restore", box) in lab.engine.calls
            last = (await lab.client.get("/sandboxes/box/audit/changes")).json()["changes"][-1]
            assert (last["what"], last["subject"], last["after"]) == (
                "sandbox-restored",
                "then",
                {"kept": "box-1"},
            )

    run(work())


def test_what_a_kill_interrupts_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A control plane that dies while a snapshot is made, or removed, leaves none; the next one removes the rest."""
    # It gives the request that is under way no time to end.
    monkeypatch.setattr("irons_local.control.http.listeners._GRACE", 0.01)

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create()
            kept = await snapshot(lab, name="kept")
            gone = await snapshot(lab, name="gone")
            await lab.store.write(lambda connection: snapshots.begin_removal(connection, gone["id"]))
            lab.engine.hold["capture"] = asyncio.Event()
            making = asyncio.create_task(lab.client.post("/sandboxes/box/snapshots", json={"name": "half"}))

            async def began() -> bool:
                return len([call for call, _ in lab.engine.calls if call == "capture"]) == 3

            await until(began)
            making.cancel()
        lab.engine.hold.clear()
        async with control_plane(tmp_path, lab.engine) as again:
            assert await listed(again) == ["kept"]
            assert again.engine.snapshots == {kept["id"]: "kept"}
            assert (await snapshot(again, name="half"))["name"] == "half"

    run(work())


def test_copies_need_memory(tmp_path: Path) -> None:
    """What would leave less than the reserve is refused with the sum; a kernel that does not say is not asked."""
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:       4000000 kB\nMemAvailable:     400000 kB\n")
    _check_memory(2, meminfo=meminfo)
    with pytest.raises(HttpError, match=r"50 copies need 1.2 GiB of memory at least, and 135 MiB is free"):
        _check_memory(50, meminfo=meminfo)
    machine = vm_limits.on_host(Limits(memory=512 << 20))
    with pytest.raises(HttpError, match=r"2 copies need 1.4 GiB of memory at least"):
        _check_memory(2, machine, meminfo)
    meminfo.write_text("MemTotal:       4000000 kB\n")
    _check_memory(50, meminfo=meminfo)
