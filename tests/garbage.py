"""What Python's collector of garbage looks at: what the tests make, not the tests themselves."""

from __future__ import annotations

import gc
from collections.abc import Generator

import pytest

YOUNG = 20_000
"""How many objects are made before the collector looks for circles among them."""


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection() -> Generator[None, object, object]:
    """Look for no garbage while tests are found: nearly all that is made then stays."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Leave out of every collection what was collected: thousands of tests and all modules stay until the end, and little else."""
    gc.freeze()
    gc.set_threshold(YOUNG)
