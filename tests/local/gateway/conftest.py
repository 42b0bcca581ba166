"""A gateway per test, in one lab and one cell per module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.lab import LAB_NEEDS, Lab, make_lab
from tests.local.gateway.stand import CellNet, Stand, make_stand
from tests.machine import Machine


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory, machine: Machine) -> Iterator[Lab]:
    """The stand-in internet, and the host before it."""
    machine.require(*LAB_NEEDS)
    with make_lab(tmp_path_factory.mktemp("lab")) as lab:
        yield lab


@pytest.fixture(scope="module")
def net(machine: Machine) -> Iterator[CellNet]:
    """A cell's network."""
    machine.require("networks", "nft")
    net = CellNet()
    try:
        yield net
    finally:
        net.close()


@pytest.fixture
def stand(lab: Lab, net: CellNet, tmp_path: Path) -> Iterator[Stand]:
    """A fresh gateway that serves the cell."""
    with make_stand(lab, tmp_path, net) as stand:
        yield stand


@pytest.fixture
def patient(lab: Lab, net: CellNet, tmp_path: Path) -> Iterator[Stand]:
    """A fresh gateway that gives up nothing that is not finished: all of it is there at one moment, however late."""
    with make_stand(lab, tmp_path, net, patient=True) as stand:
        yield stand


@pytest.fixture
def unanswered(lab: Lab) -> Iterator[None]:
    """Have the host wait for its name server as long as it can, instead of giving up after some seconds."""
    conf = lab.directory / "resolv.conf"
    before = conf.read_text()
    conf.write_text("nameserver 203.0.113.53\noptions timeout:30 attempts:5\n")
    try:
        yield
    finally:
        conf.write_text(before)


@pytest.fixture(scope="module")
def _running(lab: Lab, net: CellNet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    with make_stand(lab, tmp_path_factory.mktemp("gateway"), net) as stand:
        yield stand


@pytest.fixture
def shared(_running: Stand) -> Stand:
    """A gateway that the tests of a module share, with nothing under way, arrived or recorded yet."""
    _running.settle()
    _running.mark()
    return _running
