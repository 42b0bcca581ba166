"""Variables of `create`: to the engine and nowhere else, no matter what is interrupted."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.local.control.lab import KEY, PretendEngine, control_plane, run

from irons_local.errors import EngineError

MARKER = "marker-5d0c1f"
ENVIRONMENT = {"API_KEY": f"{MARKER}'\n$(x)", "OTHER": ""}


def _holding(directory: Path) -> list[str]:
    """The files below a directory that hold the marker."""
    return [
        str(path.relative_to(directory))
        for path in directory.rglob("*")
        if path.is_file() and MARKER.encode() in path.read_bytes()
    ]


def test_the_engine_alone_has_them(tmp_path: Path) -> None:
    """The engine gets name and value; no file, answer or log of the control plane has a value."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            made = await lab.create("box", environment=ENVIRONMENT)
            assert lab.engine.made[made["id"]].environment == ENVIRONMENT
            assert MARKER not in repr(lab.engine.made)
            assert MARKER not in json.dumps(await lab.status("box"))
        assert _holding(tmp_path) == []

    run(work())


@pytest.mark.slow
def test_a_create_that_failed_keeps_them_for_the_next_start(tmp_path: Path) -> None:
    """They outlive a create that fails and the control plane, in one file of this user's; destroy removes it."""

    async def work() -> None:
        engine = PretendEngine()
        engine.trouble["create"] = EngineError("failed", "no")
        async with control_plane(tmp_path, engine) as lab:
            for name in ("one", "two"):
                body = {"name": name, "public_key": KEY, "environment": ENVIRONMENT}
                engine.trouble["create"] = EngineError("failed", "no")
                assert (await lab.client.post("/sandboxes", json=body)).status_code == 202
                await lab.reaches(name, "error")
            identity = (await lab.status("one"))["id"]
        async with control_plane(tmp_path, engine) as lab:
            directory = lab.paths.local / "variables"
            assert len(_holding(tmp_path)) == 2
            assert (directory / identity).stat().st_mode & 0o777 == 0o600
            assert (await lab.client.post("/sandboxes/one/start")).status_code == 202
            await lab.reaches("one", "ready")
            assert engine.made[identity].environment == ENVIRONMENT
            assert (await lab.client.delete("/sandboxes/two")).status_code == 200
            assert _holding(tmp_path) == []
            (directory / "sb_0000000000000000").write_text(MARKER)
        # One that a crash left between two steps belongs to no sandbox.
        async with control_plane(tmp_path, engine) as lab:
            assert await asyncio.to_thread(_holding, tmp_path) == []

    run(work())


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"A B": MARKER}, "environment: 'A B' is not the name of a variable"),
        ({"1A": MARKER}, "is not the name"),
        ({"": MARKER}, "is not the name"),
        ({"A\n": MARKER}, "is not the name"),
        ({"Ä": MARKER}, "is not the name"),
        ({"OPTIND": MARKER}, "belongs to the shell"),
        ({"BASH_ENV": MARKER}, "belongs to the shell"),
        ({"irons_x": MARKER}, "belongs to the shell"),
        ({"HOME": MARKER}, "belongs to the shell or the session"),
        ({"A": MARKER + "\0"}, "environment['A'] holds a NUL character"),
        ({"A": [MARKER]}, "environment['A'] must be a text"),
        ({"A": MARKER * 9000}, "environment['A'] is longer than 65536"),
        ({f"A{n}": MARKER for n in range(65)}, "environment has more than 64 members"),
        (MARKER, "environment must be an object or null"),
    ],
)
def test_what_cannot_be_is_refused_without_the_value(tmp_path: Path, environment: Any, said: str) -> None:
    """400 names the variable and never its value; nothing is made or kept."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            body = {"name": "box", "public_key": KEY, "environment": environment}
            answer = await lab.client.post("/sandboxes", json=body)
            assert answer.status_code == 400
            assert said in answer.json()["error"]
            assert MARKER not in answer.text
            assert not lab.engine.made
        assert _holding(tmp_path) == []

    run(work())


def test_a_name_that_is_taken_keeps_none(tmp_path: Path) -> None:
    """A refused create leaves no file behind."""

    async def work() -> None:
        async with control_plane(tmp_path) as lab:
            await lab.create("box")
            body = {"name": "box", "public_key": KEY, "environment": ENVIRONMENT}
            assert (await lab.client.post("/sandboxes", json=body)).status_code == 409
        assert _holding(tmp_path) == []

    run(work())
