"""docs/api.md says what the routes are."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from irons_local.control.api.app import ROUTES

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def render() -> ModuleType:
    """The program that writes the page."""
    spec = importlib.util.spec_from_file_location("render_api", ROOT / "tools/render_api.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_what_the_routes_give(render: ModuleType) -> None:
    """docs/api.md is as `make docs` writes it, with a heading for each route."""
    text = (ROOT / "docs/api.md").read_text()
    assert text == render.page()
    headings = re.findall(r"^### (\S+ \S+)$", text, re.MULTILINE)
    assert sorted(headings) == sorted(f"{route.method} {route.path}" for route in ROUTES)


def test_the_calls_of_v0_are_routes(render: ModuleType) -> None:
    """Each call that the page marks as v0 is served."""
    assert {(route.method.lower(), route.path) for route in ROUTES} >= render.V0
