"""The stops of `make tour`: functions that exist, on the way that docs/architecture.md describes."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
NAME = "tour_stops"


@pytest.fixture(scope="module")
def stops() -> Iterator[ModuleType]:
    """The list, with what makes a path of calls."""
    spec = importlib.util.spec_from_file_location(NAME, ROOT / "tools/tour/stops.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[NAME]


def test_every_stop_is_a_function_at_its_place(stops: ModuleType) -> None:
    """Whoever moves or renames one finds it here, not in a sandbox: file and line are where it begins."""
    for stop in stops.STOPS:
        file, _, line = stop.place().rpartition(":")
        begins = (ROOT / file).read_text("utf-8").splitlines()[int(line) - 1 : int(line) + 2]
        name = stop.name.rpartition(".")[2]
        assert any(f"def {name}(" in text for text in begins), stop


def test_the_architecture_describes_every_stop(stops: ModuleType) -> None:
    """The page and the tour go the same way."""
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    section = page.partition("\n## One connection\n")[2].partition("\n## ")[0]
    assert [stop.module for stop in stops.STOPS if f"`{stop.module}`" not in section] == []


def test_a_path_takes_the_first_call_after_the_stop_before(stops: ModuleType) -> None:
    """Calls of other connections, and of the same function earlier or again, are not on it."""
    call, some = stops.Call, stops.STOPS[:3]
    calls = [call(2, 1), call(0, 2), call(2, 3), call(0, 4), call(1, 5), call(1, 6), call(2, 7)]
    assert stops.path(reversed(calls), some) == [call(0, 2), call(1, 5), call(2, 7)]


def test_a_stop_that_was_not_reached_is_named(stops: ModuleType) -> None:
    """Also where it was called, but before the stop that it comes after."""
    call, some = stops.Call, stops.STOPS[:2]
    with pytest.raises(stops.LostError, match=f"{some[1].name} was not called after {some[0].name}"):
        stops.path([call(1, 1), call(0, 2)], some)
