"""Tests in processes that are forked where all tests are collected: `pytest --forks 2`, as `make quick` does.

To collect costs a tenth of what the tests cost that start no process, and each worker of pytest-xdist collects by itself;
a fork has what this process collected. It is for such tests alone: each fork also has what this process has open. A module
is run in one fork, in order. Of a fork that crashes, the tests that it had are reported as failed.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.parallel import end_at_first_signal, turn, unit

_WORD = 4
"""Bytes of a unit's number, and of a report's length."""
_ENDS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


class _Fork(NamedTuple):
    """A process that runs tests.

    Attributes:
        pid: its id.
        reports: the pipe on which it reports.
    """

    pid: int
    reports: int


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of the processes."""
    parser.getgroup("order").addoption(
        "--forks",
        type=int,
        default=0,
        metavar="N",
        help="run the tests, all of them pure, in so many processes",
    )


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    """Run the tests in forks, where that is asked for and there is something to run."""
    count = int(session.config.getoption("--forks") or 0)
    if not count or session.testsfailed or session.config.option.collectonly:
        return None
    items = sorted(session.items, key=turn)
    endings, left = _run(session, items, count)
    if session.shouldfail:
        raise session.Failed(session.shouldfail)
    if session.shouldstop:
        raise session.Interrupted(session.shouldstop)
    for item in left:
        _tell(session.config, _lost(item, endings))
    return True


def _run(
    session: pytest.Session, items: Sequence[pytest.Item], count: int
) -> tuple[list[str], list[pytest.Item]]:
    """Run tests in so many forks; how those ended that did not end well, and the tests that none reported."""
    units = [list(each) for _, each in groupby(items, key=lambda item: unit(item.nodeid))]
    todo, numbers = os.pipe()
    os.write(numbers, b"".join(number.to_bytes(_WORD, "big") for number in range(len(units))))
    os.close(numbers)
    # Here and not in a fork: it is emptied where it is first asked for.
    room: Path = _directories(session.config).getbasetemp()
    forks: list[_Fork] = []
    left = {item.nodeid: item for item in items}
    try:
        forks.extend(_fork(session, units, todo, room / f"fork{number}") for number in range(count))
        for report in _received(forks):
            told = session.config.hook.pytest_report_from_serializable(config=session.config, data=report)
            left.pop(told.nodeid, None)
            _tell(session.config, told)
            if session.shouldfail or session.shouldstop:
                _take_all(todo)
    except BaseException:
        _take_all(todo)
        for each in forks:
            os.kill(each.pid, signal.SIGTERM)
        raise
    finally:
        os.close(todo)
        for each in forks:
            os.close(each.reports)
        statuses = [os.waitpid(each.pid, 0)[1] for each in forks]
    return [_ending(status) for status in statuses if status], list(left.values())


def _take_all(todo: int) -> None:
    """Leave no fork anything more to do; it ends what it has."""
    while os.read(todo, 1 << 16):
        pass


def _fork(session: pytest.Session, units: Sequence[Sequence[pytest.Item]], todo: int, room: Path) -> _Fork:
    read, write = os.pipe()
    # A signal that comes before its handler is there would have the fork end as if it were this process.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDS)
    pid = os.fork()
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(write)
        return _Fork(pid, read)
    status = 1
    try:
        end_at_first_signal()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        os.close(read)
        _share_nothing(session.config, room)
        session.config.pluginmanager.register(_Sender(session.config, write))
        try:
            _run_units(session, units, todo)
        finally:
            session._setupstate.teardown_exact(None)
        status = 0
    finally:
        # What is to be done at the end of a run is left to the process that began it.
        os._exit(status)


def _share_nothing(config: pytest.Config, directory: Path) -> None:
    """Let a fork print nothing, and write to files and directories of its own."""
    config.pluginmanager.unregister(name="terminalreporter")
    capture: Any = config.pluginmanager.getplugin("capturemanager")
    # It captures nothing between tests: what was standard output is so again. Its files stay the other process's, open.
    capture.of_the_run, capture._global_capturing = capture._global_capturing, None
    capture.start_global_capturing()
    capture.suspend_global_capture()
    directory.mkdir(mode=0o700)
    _directories(config)._basetemp = directory


def _directories(config: pytest.Config) -> Any:
    return config._tmp_path_factory  # type: ignore[attr-defined]


def _run_units(session: pytest.Session, units: Sequence[Sequence[pytest.Item]], todo: int) -> None:
    """Take one unit after the other, for as long as there is one that no fork has taken."""
    while number := os.read(todo, _WORD):
        items = units[int.from_bytes(number, "big")]
        # After a unit all is taken down that is not the session's: which unit is next shows when it is taken.
        for item, following in zip(items, [*items[1:], session], strict=True):
            item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            if session.shouldfail or session.shouldstop:
                return


class _Sender:
    """Sends the reports of a fork, of each test that passed only one.

    Args:
        config: the run's.
        write: the pipe.
    """

    def __init__(self, config: pytest.Config, write: int) -> None:
        self._config = config
        self._all = config.option.durations is not None or config.option.verbose > 0
        self._write = write

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or not report.passed or self._all:
            told = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
            data = json.dumps(told).encode()
            left = memoryview(len(data).to_bytes(_WORD, "big") + data)
            while left:
                left = left[os.write(self._write, left) :]


def _received(forks: Sequence[_Fork]) -> Iterator[dict[str, Any]]:
    """Yield each report, until every fork has ended."""
    arrived = {each.reports: bytearray() for each in forks}
    with selectors.DefaultSelector() as selector:
        for reports in arrived:
            selector.register(reports, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select():
                data = os.read(key.fd, 1 << 16)
                if not data:
                    selector.unregister(key.fd)
                arrived[key.fd] += data
                yield from _whole(arrived[key.fd])


def _whole(arrived: bytearray) -> Iterator[dict[str, Any]]:
    """Take the reports that have arrived as a whole."""
    while len(arrived) >= _WORD and len(arrived) >= (end := _WORD + int.from_bytes(arrived[:_WORD], "big")):
        yield json.loads(arrived[_WORD:end])
        del arrived[:end]


def _tell(config: pytest.Config, report: pytest.TestReport) -> None:
    config.hook.pytest_runtest_logreport(report=report)
    config.hook.pytest_runtest_logfinish(nodeid=report.nodeid, location=report.location)


def _ending(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _lost(item: pytest.Item, endings: Sequence[str]) -> pytest.TestReport:
    why = f"not reported, and a process that ran tests ended early: {', '.join(endings)}"
    return pytest.TestReport(item.nodeid, item.location, {}, "failed", why, "call")
