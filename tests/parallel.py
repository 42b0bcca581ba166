"""Tests in several processes at once, by pytest-xdist: `pytest -n 2`; without `-n`, or without the plugin, in one as ever.

What a module's fixtures make is made once: the unit that a worker is given is a module, or the part of it that is
for root, or for an ordinary user. The end-to-end tests of one of these two are one unit: they share a lab, a person and
an image, and each worker makes its own. What is marked `alone` waits until nothing else runs. An interrupted run ends
when every worker has taken its fixtures down.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import pytest
from _pytest.runner import runtestprotocol

if TYPE_CHECKING:
    from xdist.scheduler import LoadScopeScheduling
    from xdist.workermanage import WorkerController

ALONE = "alone"
"""The mark, and the unit, of tests that run when nothing else does."""
FIRST = ("tests/e2e/", "tests/local/test_engine", "tests/local/gateway/", "tests/local/", "")
"""What is begun first, because it takes longest."""
PATIENCE = 600.0
"""Seconds that interrupted workers have to take down what their tests made."""
_TOGETHER = "tests/e2e/"
"""Where all that is for one user is one unit: a person is made once, with an image that takes its time."""
_USER = re.compile(r"[\[-](root|user|ordinary)[]-]|_for_(root|an_ordinary_user)\[")


def unit(nodeid: str) -> str:
    """Name what a worker runs in one piece: the module of a test, and the user that it is for."""
    user = _USER.search(nodeid)
    if user is None:
        return nodeid.partition("::")[0]
    whole = _TOGETHER if nodeid.startswith(_TOGETHER) else nodeid.partition("::")[0]
    return f"{whole}[{user[1] or user[2]}]"


def is_worker(config: pytest.Config) -> bool:
    """Tell whether this process runs tests for another one."""
    return hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    """End as Ctrl-C does, every fixture taken down, where a run is terminated or loses its terminal."""
    config.addinivalue_line("markers", f"{ALONE}: measures, or is much at once; runs beside no other test")
    if is_worker(config):
        signal.signal(signal.SIGTERM, _once)
        others: tuple[signal.Signals, ...] = (signal.SIGHUP, signal.SIGINT)
    else:
        others = (signal.SIGHUP, signal.SIGTERM)
        config.pluginmanager.register(_Workers(config))
    for number in others:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _once if is_worker(config) else signal.default_int_handler)


def _once(number: int, frame: FrameType | None) -> None:
    """Interrupt, the first time: Ctrl-C comes from the terminal, and then from the process that started this one."""
    for each in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        if signal.getsignal(each) is not signal.SIG_IGN:
            signal.signal(each, lambda *_: None)
    signal.default_int_handler(number, frame)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a worker, put first what takes longest and last what is alone, and tell the scheduler of that."""
    if is_worker(config):
        items.sort(key=_turn)
        told = [item.nodeid for item in items if item.get_closest_marker(ALONE)]
        Path(config.workerinput["alone"]).write_text(json.dumps(told))  # type: ignore[attr-defined]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    """In a worker, report one time that a test passed: each report costs both processes as much as a small test.

    Setups and teardowns that passed are reported where their durations are asked for, and to who wants to see more.
    """
    if not _is_brief(item.config):
        return None
    runtestprotocol(item, log=False, nextitem=nextitem)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Report at once what such a worker reports: it may die in what comes after, such as a teardown."""
    report = yield
    if _is_brief(item.config) and (report.when == "call" or not report.passed):
        item.ihook.pytest_runtest_logreport(report=report)
    return report


def _is_brief(config: pytest.Config) -> bool:
    return is_worker(config) and config.option.durations is None and config.option.verbose <= 0


def _turn(item: pytest.Item) -> int:
    if item.get_closest_marker(ALONE):
        return len(FIRST)
    return next(number for number, path in enumerate(FIRST) if item.nodeid.startswith(path))


class _Workers:
    """The workers of this run, which it outlives.

    Args:
        config: the run's.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._running: list[WorkerController] = []
        self._told = tempfile.TemporaryDirectory(prefix="irons-tests-")
        config.add_cleanup(self._told.cleanup)

    def _alone(self) -> set[str]:
        """What the workers found to be alone; each writes the same."""
        return {name for path in Path(self._told.name).iterdir() for name in json.loads(path.read_text())}

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: WorkerController) -> None:
        node.workerinput["alone"] = str(Path(self._told.name) / node.gateway.id)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodeready(self, node: WorkerController) -> None:
        self._running.append(node)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: WorkerController, error: object) -> None:
        with contextlib.suppress(ValueError):
            self._running.remove(node)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_make_scheduler(self, config: pytest.Config, log: Any) -> LoadScopeScheduling | None:
        if config.getvalue("dist") != "loadgroup":
            return None
        config.option.loadscopereorder = False
        return _scheduler(config, log, self._alone)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Before xdist closes the connections, which ends a worker wherever it is, have the workers end by themselves."""
        for node in self._running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(node.gateway._io.popen.pid, signal.SIGTERM)  # pyright: ignore[reportAttributeAccessIssue]
        for node in self._running:
            with contextlib.suppress(OSError, node.channel.RemoteError):
                node.channel.waitclose(PATIENCE)


def _scheduler(config: pytest.Config, log: Any, alone: Callable[[], set[str]]) -> LoadScopeScheduling:
    from xdist.scheduler import LoadScopeScheduling

    class Units(LoadScopeScheduling):  # type: ignore[misc]
        """Hands units out in the order of the tests; the last worker, when the others are gone, is given what is alone."""

        def schedule(self) -> None:
            self.alone = alone()
            super().schedule()

        def _split_scope(self, nodeid: str) -> str:
            return ALONE if nodeid in self.alone else unit(nodeid)

        def _assign_work_unit(self, node: WorkerController) -> None:
            if not self._waits():
                super()._assign_work_unit(node)

        def _reschedule(self, node: WorkerController) -> None:
            if not self._waits():
                super()._reschedule(node)
            elif any(not other.shutting_down for other in self.nodes if other is not node):
                node.shutdown()

        def _waits(self) -> bool:
            return next(iter(self.workqueue), None) == ALONE and len(self.nodes) > 1

        def remove_node(self, node: WorkerController) -> str | None:
            crashed: str | None = super().remove_node(node)
            if len(self.nodes) == 1 and self.collection:
                self._reschedule(self.nodes[0])
            return crashed

    return Units(config, log)
