"""Fixtures of the local backend's tests: people, and keepers of theirs."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator

import pytest
from tests.local.engine_fixtures import archive, place_for_all
from tests.local.people import Kept, Person, keeping, ordinary_person, root_person

__all__ = ["archive", "kept", "person", "place_for_all"]

TOOLS = ("nft", "newuidmap", "useradd", "setpriv", "ip")


@pytest.fixture(scope="module", params=["root", "ordinary"])
def person(request: pytest.FixtureRequest) -> Iterator[Person]:
    """Root, and then an ordinary user."""
    if os.geteuid() != 0:
        pytest.skip("making users takes root")
    missing = [tool for tool in TOOLS if shutil.which(tool, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]
    if missing:
        pytest.skip(f"this machine lacks {', '.join(missing)}")
    with root_person() if request.param == "root" else ordinary_person() as made:
        yield made


@pytest.fixture
def kept(person: Person) -> Iterator[Kept]:
    """A running keeper with stand-ins."""
    with keeping(person) as keeper:
        yield keeper
