"""The lifecycle table: each state and verb through a real control plane, against the table itself."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.local.control.lab import KEY, Lab, PretendEngine, control_plane, run, until

from irons_local.control.sandbox.states import ASKED, TABLE, State, StateRow, Verb, VerbRefusal, statuses
from irons_local.control.store import sandboxes
from irons_local.control.store.sandboxes import StoredSandbox
from irons_local.errors import EngineError

HELD = {State.CREATING: "create", State.STARTING: "start", State.STOPPING: "stop", State.DELETING: "destroy"}
MADE = (State.CREATING, State.STARTING, State.READY, State.RUNNING, State.STOPPING)
OTHER = KEY.replace("GnJ8", "GnJ9")


def test_the_table_is_whole() -> None:
    """Each state has a row, each verb a column, and what is asked for has an answer in every state."""
    assert set(TABLE) == set(State)
    assert {verb.value for verb in Verb} == set(StateRow._fields)
    assert all(getattr(row, verb.value) is not None for row in TABLE.values() for verb in ASKED)
    # Each status of the API is a state, with and without work where it is a busy one.
    known = (sandboxes.CREATING, sandboxes.STARTING, sandboxes.RUNNING, sandboxes.READY)
    assert {state.status for state in State} == {
        *known,
        sandboxes.STOPPING,
        sandboxes.STOPPED,
        sandboxes.ERROR,
    }
    # A machine is not removed while it may run.
    running = (State.RUNNING, State.READY, State.STOPPING, State.STOPPING_LEFT)
    assert all(isinstance(TABLE[state].delete, VerbRefusal) for state in running)


async def _row(lab: Lab, name: str = "box") -> StoredSandbox | None:
    return await lab.store.read(lambda connection: sandboxes.find(connection, name))


async def _put(lab: Lab, name: str = "box", **values: Any) -> None:
    def write(connection: sqlite3.Connection) -> None:
        found = sandboxes.get(connection, name)
        sandboxes.change(connection, found.id, **values)

    await lab.store.write(write)


async def _at_rest(lab: Lab) -> None:
    await lab.create()
    await lab.client.post("/sandboxes/box/stop")
    await lab.reaches("box", "stopped")
    await lab.client.get("/sandboxes/box?wait=20")


async def _arrange(lab: Lab, state: State, *, made: bool) -> list[asyncio.Future[httpx.Response]]:
    """Bring a sandbox into a state; gives the requests that are under way."""
    engine = lab.engine
    if state in (State.CREATING, State.STARTING):
        engine.hold[HELD[state]] = asyncio.Event()
        asked = await lab.client.post("/sandboxes", json={"name": "box", "public_key": KEY})
        # Before the engine is called the row still changes: it gets its port.
        await lab.is_asked(HELD[state], asked.json()["id"])
    elif state is State.ERROR:
        engine.trouble["start" if made else "create"] = EngineError("failed", "no room")
        await lab.client.post("/sandboxes", json={"name": "box", "public_key": KEY})
        await lab.reaches("box", "error")
        await lab.client.get("/sandboxes/box?wait=20")
    elif state in (State.READY, State.RUNNING, State.STOPPING):
        await lab.create()
        await lab.client.get("/sandboxes/box?wait=20")
        if state is State.RUNNING:
            await _put(lab, status=sandboxes.RUNNING)
        if state is State.STOPPING:
            engine.hold["stop"] = asyncio.Event()
            stopping = await lab.client.post("/sandboxes/box/stop")
            await lab.is_asked("stop", stopping.json()["id"])
    else:
        await _at_rest(lab)
        if state is State.DELETING:
            engine.hold["destroy"] = asyncio.Event()
            asking = asyncio.ensure_future(lab.client.delete("/sandboxes/box"))
            await until(lambda: _is(lab, deleting=True))
            return [asking]
        if state is not State.STOPPED:
            await _put(lab, status=state.status)
    if not made and state is not State.ERROR:
        await _put(lab, username=None)
    return []


async def _is(lab: Lab, *, deleting: bool) -> bool:
    row = await _row(lab)
    return row is not None and row.deleting is deleting


async def _ask(lab: Lab, verb: Verb) -> httpx.Response:
    if verb is Verb.CREATE:
        return await lab.client.post("/sandboxes", json={"name": "box", "public_key": KEY})
    if verb is Verb.DELETE:
        return await lab.client.delete("/sandboxes/box")
    if verb is Verb.KEYS:
        return await lab.client.post("/sandboxes/box/access", json={"public_key": OTHER})
    return await lab.client.post(f"/sandboxes/box/{verb.value}")


@pytest.mark.parametrize("made", [True, False], ids=["made", "never-made"])
@pytest.mark.parametrize("verb", ASKED, ids=lambda verb: verb.value)
def test_each_state_answers_each_verb_as_the_table_says(tmp_path: Path, verb: Verb, *, made: bool) -> None:
    """In every state a verb is refused with the table's text, leads to the table's state, or changes nothing."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            # Work in progress makes it, and a machine that runs was made.
            for state in (each for each in State if made or each not in MADE):
                await _one(lab, state, verb, made=made)
                await _clear(lab)

    run(work())


async def _one(lab: Lab, state: State, verb: Verb, *, made: bool) -> None:
    cell = getattr(TABLE[state], verb.value)
    asking = await _arrange(lab, state, made=made)
    before = await _row(lab)
    assert before is not None
    was_made = before.username is not None
    if isinstance(cell, VerbRefusal) and cell.applies(made=was_made):
        answer = await _ask(lab, verb)
        assert answer.status_code == 409, (state, answer.text)
        assert answer.json()["error"].startswith(cell.text.format(name="box", doing=state.doing)), state
        assert await _row(lab) == before
    elif verb is Verb.KEYS:
        assert (await _ask(lab, verb)).status_code == 200, state
        after = await _row(lab)
        assert (after and (after.status, after.deleting)) == (before.status, before.deleting)
    elif verb is Verb.CREATE:
        assert (await _ask(lab, verb)).status_code == 202, state
        after = await _row(lab)
        assert after is not None
        assert after.id != before.id
    elif verb is Verb.DELETE:
        if state is State.DELETING:
            _let_go(lab)
        # The removal under way may have ended when this one arrives.
        assert (await _ask(lab, verb)).status_code in ((200, 404) if asking else (200,)), state
        assert await _row(lab) is None
    else:
        assert isinstance(cell, State)
        if cell is not state:
            lab.engine.hold.setdefault(verb.value, asyncio.Event())
        answer = await _ask(lab, verb)
        assert answer.status_code == 202, (state, answer.text)
        assert answer.json()["status"] == cell.status, state
        if cell is state:
            assert await _row(lab) == before
    _let_go(lab)
    assert all(answer.status_code == 200 for answer in await asyncio.gather(*asking))


async def _clear(lab: Lab) -> None:
    """Remove the sandbox, and what is pretended for it."""
    _let_go(lab)
    lab.engine.hold.clear()
    await lab.client.get("/sandboxes/box?wait=20")
    await lab.client.post("/sandboxes/box/stop")
    await lab.client.get("/sandboxes/box?wait=20")
    await lab.client.delete("/sandboxes/box")
    assert await _row(lab) is None


def _let_go(lab: Lab) -> None:
    for event in lab.engine.hold.values():
        event.set()


@pytest.mark.parametrize("verb", [Verb.FOUND_RUNNING, Verb.FOUND_ENDED], ids=lambda verb: verb.value)
def test_the_next_control_plane_settles_each_state_as_the_table_says(tmp_path: Path, verb: Verb) -> None:
    """What a dead control plane left ends where the table leads, whether the machine runs or not."""
    goals = {state: getattr(TABLE[state], verb.value) for state in State}
    # On the others only a living control plane works.
    left = [state for state, goal in goals.items() if goal is not None]
    assert set(State) - set(left) == {State.CREATING, State.STARTING, State.STOPPING}

    async def work() -> None:
        engine = PretendEngine()
        names = {f"box-{at}": state for at, state in enumerate(left)}
        ids: dict[str, str] = {}
        async with control_plane(tmp_path, engine) as lab:
            for name in names:
                ids[name] = (await lab.create(name))["id"]
                await lab.client.post(f"/sandboxes/{name}/stop")
                await lab.reaches(name, "stopped")
                await lab.client.get(f"/sandboxes/{name}?wait=20")
            for name, state in names.items():
                await _put(lab, name, status=state.status, deleting=int(state is State.DELETING))
        if verb is Verb.FOUND_RUNNING:
            engine.running = {identity: asyncio.Event() for identity in ids.values()}
        async with control_plane(tmp_path, engine) as lab:
            for name, state in names.items():
                goal = goals[state]
                await lab.client.get(f"/sandboxes/{name}?wait=20")
                found = await _row(lab, name)
                if goal is State.DELETING:
                    assert found is None
                else:
                    assert found is not None
                    assert found.status == ("stopped" if goal is State.STOPPING else goal.status), state
                # Whoever is not ready has no machine that runs.
                assert (ids[name] in engine.running) == (goal is State.READY), state

    run(work())


@pytest.mark.parametrize("verb", [Verb.MADE, Verb.UP, Verb.ENDED], ids=lambda verb: verb.value)
def test_what_happens_late_changes_nothing(verb: Verb) -> None:
    """What a task of the control plane reports has an effect in the table's states alone, no matter what came in between."""
    effective = [state for state in State if isinstance(getattr(TABLE[state], verb.value), State)]
    assert sorted(statuses(verb)) == sorted(state.status for state in effective)
    assert not {State.STOPPING, State.DELETING, State.STOPPED, State.ERROR} & set(effective)


def test_a_start_waits_until_the_machine_is_cleared_away(tmp_path: Path) -> None:
    """A sandbox in `error` whose machine is still being ended starts when that is over, and is ready in the end."""

    async def work() -> None:
        engine = PretendEngine()
        async with control_plane(tmp_path, engine) as lab:
            await _at_rest(lab)
            identity = (await lab.status())["id"]
            await _put(lab, status=sandboxes.ERROR, reason="no room")
        engine.running[identity] = asyncio.Event()
        engine.hold["stop"] = asyncio.Event()
        engine.calls.clear()
        async with control_plane(tmp_path, engine) as lab:
            await lab.is_asked("stop", identity)
            start = asyncio.ensure_future(lab.client.post("/sandboxes/box/start"))
            await asyncio.sleep(0)
            engine.hold["stop"].set()
            assert (await start).status_code == 202
            await lab.reaches("box", "ready")
            await lab.client.get("/sandboxes/box?wait=20")
            assert (await lab.status())["status"] == "ready"
            names = [call for call, _ in engine.calls]
            assert names.index("stop") < names.index("start")

    run(work())


async def _equal(heard: list[tuple[str, str]], wanted: list[tuple[str, str]]) -> bool:
    return heard == wanted


def test_plugins_hear_of_what_became_of_a_sandbox(tmp_path: Path) -> None:
    """Ready, stopped and destroyed are steps that hooks hear of, each once and in order."""

    async def work() -> None:
        heard: list[tuple[str, str]] = []
        async with control_plane(tmp_path) as lab:
            lab.server.plane.lifecycle._noted = lambda kind, sandbox: heard.append((kind, sandbox.name))
            await lab.create()
            await until(lambda: _equal(heard, [("ready", "box")]))
            assert (await lab.client.post("/sandboxes/box/stop")).status_code == 202
            await lab.reaches("box", "stopped")
            assert (await lab.client.delete("/sandboxes/box")).is_success

            async def gone() -> bool:
                return ("destroyed", "box") in heard

            await until(gone)
            assert [kind for kind, _ in heard] == ["ready", "stopped", "destroyed"]

    run(work())
