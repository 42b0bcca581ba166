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


def test_a_connection_that_was_recorded_out_of_order_is_made_again(stops: ModuleType) -> None:
    """The control plane may read a record before the worker has notified it of that record."""
    call, some = stops.Call, stops.STOPS[:3]
    crossed = [call(0, 1), call(2, 2), call(1, 3)]
    in_order = [call(0, 4), call(1, 5), call(2, 6)]
    made: list[list[object]] = []
    coming = iter([crossed, in_order])

    def fetch() -> None:
        made.append(next(coming))

    assert stops.retraced(fetch, lambda: stops.path(made[-1], some), 2) == in_order
    assert made == [crossed, in_order]


def test_a_way_that_no_connection_goes_is_lost(stops: ModuleType) -> None:
    """After as many connections as were asked for."""
    some = stops.STOPS[:1]
    made: list[None] = []
    with pytest.raises(stops.LostError, match=some[0].name):
        stops.retraced(lambda: made.append(None), lambda: stops.path([], some), 3)
    assert len(made) == 3
