"""Time to live and idleness: deadlines that survive suspend, clock steps and restarts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.local.control.lab import Lab, PretendEngine, control_plane, run, until

from irons_local.control.sandbox.deadlines import SandboxDeadlines
from irons_local.control.store.terms import SECOND, Instant, Terms
from irons_local.engines.protocol import Activity

HOUR = 3600


@dataclass
class Watch:
    """Clocks that a test moves."""

    boot: str = "first"
    up: int = 1_000 * SECOND
    wall: int = 1_700_000_000 * SECOND

    def __call__(self) -> Instant:
        return Instant(self.boot, self.up, self.wall)

    def pass_by(self, seconds: int) -> None:
        """Let time go by, suspended or not."""
        self.up += seconds * SECOND
        self.wall += seconds * SECOND


@dataclass
class WatchedEngine(PretendEngine):
    """An engine that tells how busy its machines are."""

    seen: dict[str, Activity] = field(default_factory=dict)

    async def activity(self, sandbox: str) -> Activity | None:
        return self.seen.get(sandbox, Activity(0, 0)) if sandbox in self.running else None


def deadlines(lab: Lab) -> SandboxDeadlines:
    """The control plane's deadlines."""
    return lab.server.plane.deadlines


async def patch(lab: Lab, **body: Any) -> dict[str, Any]:
    """Change the terms of `box`."""
    answer = await lab.client.patch("/sandboxes/box", json=body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def gone(lab: Lab) -> bool:
    """Whether there is no `box`."""
    return (await lab.client.get("/sandboxes/box")).status_code == 404


def given(watch: Watch, seconds: int = HOUR) -> Terms:
    """Terms with a deadline in so many seconds."""
    return Terms("sb", ttl=seconds).due(watch(), seconds * SECOND)


def test_a_step_of_the_clock_moves_no_deadline() -> None:
    """Within a boot the time that has passed counts, no matter what the wall clock says; the time shown follows the clock."""
    watch = Watch()
    terms = given(watch)
    for step in (-10 * HOUR, 20 * HOUR):
        watch.wall += step * SECOND
        assert terms.left(watch()) == HOUR * SECOND
        terms = terms.noted(watch())
        assert terms.ends_at == watch.wall + HOUR * SECOND
    watch.pass_by(HOUR)
    assert terms.left(watch()) == 0


def test_after_a_boot_the_wall_clock_counts() -> None:
    """The other clock begins again; what the machine was off for counts."""
    watch = Watch()
    terms = given(watch)
    watch.boot, watch.up = "second", 5 * SECOND
    watch.wall += 600 * SECOND
    assert terms.left(watch()) == (HOUR - 600) * SECOND
    terms = terms.noted(watch())
    assert (terms.boot, terms.left(watch())) == ("second", (HOUR - 600) * SECOND)


def test_a_clock_that_lost_its_time_over_a_boot_gives_none() -> None:
    """After a boot with the clock set back there is at most what was left when it was noted."""
    watch = Watch()
    terms = given(watch)
    watch.pass_by(1200)
    terms = terms.noted(watch())
    watch.boot, watch.up, watch.wall = "second", 5 * SECOND, 0
    assert terms.left(watch()) == (HOUR - 1200) * SECOND


def test_time_left_is_noted_now_and_then() -> None:
    """What is stored changes by ten minutes, a step of the clock or a boot, and not at every look."""
    watch = Watch()
    terms = given(watch)
    watch.pass_by(500)
    assert terms.noted(watch()) is terms
    watch.pass_by(200)
    assert terms.noted(watch()).remaining == (HOUR - 700) * SECOND


def test_the_end_of_a_ttl_stops(tmp_path: Path) -> None:
    """At its end the sandbox is stopped, `status` says why, and a start gives it the same time again."""

    async def work() -> None:
        watch = Watch()
        async with control_plane(tmp_path, instant=watch) as lab:
            looks = deadlines(lab)
            await lab.create("box", ttl=HOUR)
            status = await lab.status("box")
            assert (status["ttl"], status["ends_in"], status["ends_with"]) == (HOUR, HOUR, "stop")
            watch.pass_by(HOUR - 1)
            await looks.look()
            assert (await lab.status("box"))["status"] == "ready"
            watch.pass_by(1)
            await looks.look()
            await lab.reaches("box", "stopped")
            reason = (await lab.status("box"))["metadata"]["reason"]
            assert reason == "stopped at the end of its time to live (1 h)"
            await until(lambda: _lacks(lab, "ends_at"))
            await lab.client.post("/sandboxes/box/start")
            await lab.reaches("box", "ready")
            status = await lab.status("box")
            assert (status["ends_in"], "reason" in status["metadata"]) == (HOUR, False)

    run(work())


async def _lacks(lab: Lab, key: str) -> bool:
    return key not in await lab.status("box")


@pytest.mark.parametrize("state", ["ready", "stopped", "error"])
def test_the_end_of_a_ttl_with_rm_destroys(tmp_path: Path, state: str) -> None:
    """With `rm` nothing is left, no matter what the state was."""

    async def work() -> None:
        watch = Watch()
        async with control_plane(tmp_path, instant=watch) as lab:
            looks = deadlines(lab)
            await lab.create("box", ttl=HOUR, rm=True)
            assert (await lab.status("box"))["ends_with"] == "destroy"
            if state != "ready":
                await lab.client.post("/sandboxes/box/stop")
                await lab.reaches("box", "stopped")
            if state == "error":
                lab.engine.trouble["start"] = OSError("no")
                await lab.client.post("/sandboxes/box/start")
                await lab.reaches("box", "error")
            watch.pass_by(HOUR)
            await looks.look()
            await until(lambda: gone(lab))
            assert not lab.engine.made
            said = (await lab.client.get("/sandboxes/box")).json()["error"]
            start = "no sandbox is named 'box'; it was destroyed at the end of its time to live (1 h), at 2"
            assert said.startswith(start)

    run(work())


def test_a_deadline_survives_a_restart(tmp_path: Path) -> None:
    """Terms are stored: the next control plane ends a sandbox whose time came while there was none."""

    async def work() -> None:
        watch = Watch()
        async with control_plane(tmp_path, instant=watch) as lab:
            await lab.create("box", ttl=HOUR)
            await lab.kill()
            watch.pass_by(HOUR)
            await lab.start()
            await deadlines(lab).look()
            await lab.reaches("box", "stopped")

    run(work())


def test_terms_are_changed_and_extended(tmp_path: Path) -> None:
    """PATCH sets them from now on, null removes them, and `extend` adds to what is left."""

    async def work() -> None:
        watch = Watch()
        async with control_plane(tmp_path, instant=watch) as lab:
            await lab.create("box")
            extend = "/sandboxes/box/extend"
            assert (await lab.client.post(extend, json={"seconds": 60})).status_code == 409
            status = await patch(lab, ttl=HOUR, rm=True)
            assert (status["ends_in"], status["ends_with"]) == (HOUR, "destroy")
            watch.pass_by(600)
            status = (await lab.client.post(extend, json={"seconds": 2 * HOUR})).json()
            assert status["ends_in"] == 3 * HOUR - 600
            status = await patch(lab, rm=False)
            assert (status["ends_in"], status["ends_with"]) == (3 * HOUR - 600, "stop")
            assert "ends_at" not in await patch(lab, ttl=None)

    run(work())


@pytest.mark.parametrize(
    "body",
    [
        {"rm": True},
        {"ttl": 0},
        {"ttl": 10**12},
        {"ttl": "1h"},
        {"idle_stop": 0},
        {"idle_stop": 60},
        {"name": "x"},
    ],
    ids=repr,
)
def test_bad_terms_are_refused(tmp_path: Path, body: dict[str, Any]) -> None:
    """What cannot be is refused with 400, also idleness that the engine can't tell, and changes nothing."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("box")
            assert (await lab.client.patch("/sandboxes/box", json=body)).status_code == 400
            assert await _lacks(lab, "ttl")

    run(work())


@pytest.mark.parametrize(
    ("seen", "live", "stops"),
    [
        (Activity(0, 17 * SECOND), 0, True),
        (Activity(0, 18 * SECOND), 0, False),
        (Activity(1, 0), 0, False),
        (Activity(0, 0), 1, False),
        (Activity(0, 0), None, False),
    ],
    ids=["idle", "computes", "session", "connection", "unknown"],
)
def test_idleness_stops(tmp_path: Path, seen: Activity, live: int | None, stops: bool) -> None:
    """Half an hour without a session, a connection, and 1 % of a processor stops a sandbox; each of these keeps it."""

    async def work() -> None:
        engine, watch = WatchedEngine(), Watch()
        async with control_plane(tmp_path, engine, watch) as lab:
            looks = deadlines(lab)
            lab.gateway.live = 0
            made = await lab.create("box", idle_stop=1800)
            await looks.look()
            engine.seen[made["id"]], lab.gateway.live = seen, live
            watch.pass_by(1800)
            await looks.look()
            await looks.look()
            if stops:
                await lab.reaches("box", "stopped")
                reason = (await lab.status("box"))["metadata"]["reason"]
                assert reason == "stopped after it was idle for 30 min"
            else:
                assert (await lab.status("box"))["status"] == "ready"

    run(work())


def test_idleness_survives_a_restart(tmp_path: Path) -> None:
    """Who was idle for long before the control plane ended goes on being idle after it."""

    async def work() -> None:
        watch = Watch()
        async with control_plane(tmp_path, WatchedEngine(), watch) as lab:
            lab.gateway.live = 0
            await lab.create("box", idle_stop=1800)
            await deadlines(lab).look()
            watch.pass_by(900)
            await deadlines(lab).look()
            status = await lab.status("box")
            assert (status["ends_by"], status["ends_in"]) == ("idle", 900)
            await lab.kill()
            await lab.start()
            lab.gateway.live = 0
            watch.pass_by(900)
            await deadlines(lab).look()
            await lab.reaches("box", "stopped")

    run(work())


@dataclass
class SpeakingEngine(PretendEngine):
    """An engine that writes to the terminals of sessions."""

    said: list[str] = field(default_factory=list)

    async def announce(self, sandbox: str, line: str) -> None:
        del sandbox
        self.said.append(line)


def test_open_sessions_hear_of_the_end(tmp_path: Path) -> None:
    """Five minutes before the end and one minute before it, each once; and again where it was extended."""

    async def work() -> None:
        watch, engine = Watch(), SpeakingEngine()
        async with control_plane(tmp_path, engine, watch) as lab:

            async def heard(seconds: int) -> list[str]:
                watch.pass_by(seconds)
                for _ in range(2):
                    await deadlines(lab).look()
                    await asyncio.sleep(0)
                said, engine.said = engine.said, []
                return said

            assert "end-notices" in (await lab.client.get("/version")).json()["extensions"]
            await lab.create("box", ttl=HOUR)
            line = "irons: box {}; irons extend box 2h gives it more time"
            assert await heard(HOUR - 301) == []
            assert await heard(1) == [line.format("stops in 5 min")]
            assert await heard(200) == []
            assert await heard(41) == [line.format("stops in 59 s")]
            await patch(lab, ttl=HOUR, rm=True)
            assert await heard(1) == []
            assert await heard(HOUR - 100) == [line.format("is destroyed in 1 min")]

    run(work())
