"""What Python's collector of garbage looks at: what the tests make, not the tests themselves."""

from __future__ import annotations

import gc

import pytest

YOUNG = 20_000
"""How many objects are made before the collector looks for circles among them."""


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """Leave out of every collection what was collected: thousands of tests and all modules stay until the end."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG)
