"""What docs/engines.md says is enough to write an engine from: one that was, against the conformance suite."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from tests.local.engine_cells import OwnCells
from tests.local.tiny_engine import TinyEngine
from tests.machine import Machine

from irons_local.engines import protocol
from irons_local.engines.conformance import CHECKS, Bench
from irons_local.engines.protocol import Cells, Engine, Kit, Spec
from irons_local.errors import EngineError

PAGE = (Path(__file__).parents[2] / "docs/engines.md").read_text()
HELD = (
    "create_makes_it_stopped",
    "create_refuses_what_is_there",
    "create_refuses_bad_input",
    "absent_is_said",
    "start_answers_ssh",
    "restart_finds_what_runs",
)


def test_an_engine_of_the_page_conforms(
    machine: Machine, archive: Path, place_for_all: Path, tmp_path: Path
) -> None:
    """The tiny engine passes the checks of a machine's life, and leaves no process and no file behind."""
    machine.require("root", "sandboxes", "image", "ip", "ssh-keygen")
    work = place_for_all / "tiny"
    (work / "sandboxes").mkdir(parents=True)

    async def run() -> None:
        cells = OwnCells()
        kit = Kit(cells, work / "images", work / "sandboxes", default_image=str(archive))
        for number, name in enumerate(HELD):
            directory = tmp_path / str(number)
            directory.mkdir()
            async with Bench(lambda: TinyEngine(kit), directory) as bench:
                await CHECKS[name](bench)
        assert not cells.held
        assert not list((work / "sandboxes").iterdir())

    asyncio.run(run())


@pytest.mark.parametrize("name", [name for name in vars(Engine) if not name.startswith("_")])
def test_every_method_of_an_engine_is_on_the_page(name: str) -> None:
    """docs/engines.md has a row for each method of the protocol."""
    assert re.search(rf"^\| `{name}[(`]", PAGE, re.MULTILINE)


def test_the_page_names_all_that_an_engine_meets() -> None:
    """Fields of `Kit` and `Spec`, methods of `Cells`, codes of errors, optional protocols and checks are on the page."""
    words = set(re.findall(r"\w+", PAGE))
    assert f"Kit({', '.join(Kit.__dataclass_fields__)})" in PAGE
    assert set(Spec.__dataclass_fields__) <= words
    assert {name for name in vars(Cells) if not name.startswith("_")} <= words
    assert set(EngineError.CODES) <= words
    assert {"Observer", "Admits", "Announces", "Spread", "Listens", "Booter", "Copies"} == {
        name
        for name, found in vars(protocol).items()
        if getattr(found, "_is_runtime_protocol", False) and found.__module__ == protocol.__name__
    }
    assert {
        "Observer",
        "Admits",
        "Announces",
        "Spread",
        "Listens",
        "Booter",
        "activity",
        "admit",
        "announce",
        "member_of",
        "listening",
        "boot_output",
        "Copies",
        "capture",
        "restore",
        "discard",
    } <= words
    assert set(CHECKS) <= words
