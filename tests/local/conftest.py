"""Fixtures of the local backend's tests: people, and keepers of theirs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.local.engine_fixtures import archive, place_for_all
from tests.local.people import Kept, Person, another_home, keeping, ordinary_person, root_person
from tests.machine import Machine

__all__ = ["archive", "kept", "lasting", "person", "place_for_all"]


@pytest.fixture(scope="module", params=["root", "ordinary"])
def person(request: pytest.FixtureRequest, machine: Machine) -> Iterator[Person]:
    """Root, and then an ordinary user."""
    machine.require("root", "setpriv")
    if request.param == "ordinary":
        machine.require("users", "newuidmap")
    with root_person() if request.param == "root" else ordinary_person() as made:
        yield made


@pytest.fixture
def kept(person: Person, machine: Machine) -> Iterator[Kept]:
    """A running keeper with stand-ins; a test whose keeper makes a cell needs a machine that can."""
    with keeping(person, machine=machine) as keeper:
        yield keeper


@pytest.fixture(scope="module")
def lasting(person: Person, machine: Machine) -> Iterator[Kept]:
    """A running keeper that the tests of a module share, with the cells that they made; none of them ends it."""
    with another_home(person) as here, keeping(here, machine=machine) as keeper:
        yield keeper
