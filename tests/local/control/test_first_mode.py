"""Whether someone has chosen how new sandboxes start: the answer says so until the first choice or sandbox, and never again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tests.local.control.lab import Lab, control_plane, run
from tests.local.control.test_change_log import FACE, brief, changes

from irons_local.control.egress import scope_rows
from irons_local.control.store import changelog
from irons_local.control.store.changelog import What
from irons_local.control.store.database import Store

WARN = {"mode": "warn", "differs": {}}


async def mode(lab: Lab) -> dict[str, Any]:
    """The mode of all sandboxes, as it is answered."""
    answer = await lab.client.get("/egress/mode")
    found: dict[str, Any] = answer.raise_for_status().json()
    return found


@pytest.mark.parametrize("chosen", ["warn", "deny", "ask"])
def test_a_choice_is_recorded_and_kept(tmp_path: Path, chosen: str) -> None:
    """The first choice is a change with its author, also where it is what was there; the second of the same is not; a restart keeps it."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            lab.client.headers.update(FACE)
            await lab.client.post("/egress/allow", json={"domain": "a.example"})
            assert await mode(lab) == {**WARN, "undecided": True}
            assert (await lab.client.put("/egress/mode?dry_run=true", json={"mode": chosen})).is_success
            assert (await mode(lab))["undecided"] is True
            for _ in range(2):
                done = await lab.client.put("/egress/mode", json={"mode": chosen})
                assert done.is_success
            assert "undecided" not in await mode(lab)
            (_, made) = await changes(lab)
            assert brief([made]) == [("mode-set", "", "", {"mode": "warn"}, {"mode": chosen})]
            assert (made["uid"], made["claimed_face"]) == (os.getuid(), "cli")
        async with control_plane(tmp_path) as lab:
            assert "undecided" not in await mode(lab)
            await lab.client.put("/egress/mode", json={"mode": "warn"})
            assert await mode(lab) == WARN

    run(work())


def test_a_sandbox_decides_for_good(tmp_path: Path) -> None:
    """Whoever created one has started; a destroyed one counts, and nothing is recorded for it but itself."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("box", mode=None)
            assert await mode(lab) == WARN
            await lab.client.post("/sandboxes/box/stop")
            await lab.reaches("box", "stopped")
            assert (await lab.client.delete("/sandboxes/box")).is_success
            assert await mode(lab) == WARN
            await lab.client.put("/egress/mode", json={"mode": "warn"})
            assert "mode-set" not in {each["what"] for each in await changes(lab)}

    run(work())


def test_a_log_that_made_room_counts_as_chosen(tmp_path: Path) -> None:
    """Where changes are gone one of them may have been the choice: no one is asked again."""
    store = Store(tmp_path / "irons.db")
    changelog.keep_only(store, 2)

    def work(connection: Any) -> list[bool]:
        found = []
        for _ in range(3):
            changelog.record(connection, What.KEY_MADE, subject="k")
            found.append(scope_rows.is_undecided(connection))
        return found

    assert store.write_now(work) == [True, True, False]
    store.close()
