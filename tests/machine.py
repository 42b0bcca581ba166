"""What this machine refuses, found once, and the tests that need it: skipped with that reason, and listed at the end.

A test says what it needs by `@pytest.mark.needs("user-namespaces", "zsh")`, a fixture by `machine.require("networks")`.
A need is a key of `NEEDS`, or else the name of a program. A test that itself starts a program which is not installed has
asked for it by that. With `--require all`, which CI uses, a test whose need is not met fails; what only some machines can
have is asked for as `optional` and never fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

from irons_local.doctor.checks import DoctorCheck, examine
from irons_local.paths import Paths
from tests.parallel import is_worker

_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/bin", "/sbin", "/bin"))
# A given image is as good as one that is built, the tests have an internet of their own, and only other engines need the rest.
_NOT_NEEDED = frozenset({"mmdebstrap", "cgroups", "tun", "names", "internet"})


@cache
def _checks() -> tuple[DoctorCheck, ...]:
    """Doctor's checks of this machine, run once."""
    with tempfile.TemporaryDirectory() as room:
        return examine(Paths(Path(room) / "state", Path(room) / "runtime"))


def _failed(*names: str) -> str:
    """What the first of these checks that fails says, with its fix; "" where all pass."""
    found = next((check for check in _checks() if check.name in names and not check.ok), None)
    return "" if found is None else f"{found.what}; {found.fix}"


def _root() -> str:
    return "" if os.geteuid() == 0 else "the tests do not run as root"


def _user_namespaces() -> str:
    return _failed("kernel", "user-namespaces", "apparmor", "subordinate-ids", "newuidmap")


def _sandboxes() -> str:
    return _failed(*(check.name for check in _checks() if check.name not in _NOT_NEEDED))


def _image() -> str:
    return "" if os.environ.get("IRONS_TEST_IMAGE") else _failed("mmdebstrap")


@cache
def _users() -> str:
    """Making and removing users writes to /etc."""
    if why := _root():
        return why
    if not os.access("/etc", os.W_OK):
        return "/etc is not writable, so no users can be made"
    return _programs("useradd", "userdel", "groupdel")


@cache
def _networks() -> str:
    """Networks of the tests' own, with links between them, in mount namespaces of their own."""
    if why := _root() or _programs("unshare", "nsenter", "ip"):
        return why
    script = "ip link add near type veth peer name far && mount -t tmpfs none /run"
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    return f"network and mount namespaces cannot be made: {done.stderr.strip()}" if done.returncode else ""


def _programs(*names: str) -> str:
    absent = [name for name in names if shutil.which(name, path=_PATH) is None]
    return f"not installed: {', '.join(absent)}" if absent else ""


NEEDS: Mapping[str, Callable[[], str]] = {
    "root": _root,
    "users": _users,
    "user-namespaces": _user_namespaces,
    "networks": _networks,
    "sandboxes": _sandboxes,
    "image": _image,
}
"""What a test may need next to programs, each with what says why this machine has it not."""


class Machine:
    """This machine, as the tests of one run ask for it.

    Args:
        strict: a need that is not met fails the test.
    """

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict

    def lack(self, *needs: str) -> str:
        """Return the first need that is not met, with the reason; "" where all are."""
        for need in needs:
            why = NEEDS[need]() if need in NEEDS else _programs(need)
            if why:
                return f"{need}: {why}"
        return ""

    def require(self, *needs: str, optional: bool = False) -> None:
        """Skip, or with `--require all` fail, the test that asks where a need is not met."""
        lack = self.lack(*needs)
        if lack:
            self.miss(lack, optional=optional)

    def miss(self, reason: str, *, optional: bool = False) -> None:
        """Skip the test that asks, for a reason that it found out itself; see `require`."""
        if self._strict and not optional:
            pytest.fail(f"this machine refuses what the test needs ({reason})", pytrace=False)
        pytest.skip(f"{_OPTIONAL if optional else _REFUSED}{reason}")


_REFUSED, _OPTIONAL = "refused here: ", "not here: "
_HEADINGS = {
    _REFUSED: "Not tested, because this machine refuses it:",
    _OPTIONAL: "Not tested, because not every machine has it:",
}
_MACHINE = pytest.StashKey[Machine]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of what must be tested."""
    group = parser.getgroup("machine")
    group.addoption(
        "--require", choices=("all", "none"), default="none", help="fail what this machine cannot test"
    )
    group.addoption("--untested", metavar="FILE", help="also write what was not tested to a file")


def pytest_configure(config: pytest.Config) -> None:
    """Make the one machine of this run."""
    config.addinivalue_line("markers", "needs(*needs, optional=False): what the test needs of the machine")
    config.stash[_MACHINE] = Machine(strict=config.getoption("--require") == "all")
    if not is_worker(config):
        config.pluginmanager.register(_Untested(config))


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Ask for what a test's marks say, before its fixtures are made."""
    for mark in item.iter_markers("needs"):
        item.config.stash[_MACHINE].require(*mark.args, **mark.kwargs)


@pytest.hookimpl(wrapper=True, specname="pytest_runtest_setup")
def pytest_fixtures_start_programs(item: pytest.Item) -> Generator[None]:
    """Ask for the programs that fixtures start and that are not installed."""
    with _asking(item.config.stash[_MACHINE]):
        yield


@pytest.hookimpl(wrapper=True, specname="pytest_runtest_call")
def pytest_tests_start_programs(item: pytest.Item) -> Generator[None]:
    """Ask for the programs that a test starts and that are not installed."""
    with _asking(item.config.stash[_MACHINE]):
        yield


@contextmanager
def _asking(machine: Machine) -> Iterator[None]:
    """Ask for a program that could not be started by its name alone; for one that is there it fails as it did."""
    try:
        yield
    except FileNotFoundError as error:
        if isinstance(error.filename, str) and "/" not in error.filename:
            machine.require(error.filename)
        raise


@pytest.fixture(scope="session")
def machine(request: pytest.FixtureRequest) -> Machine:
    """This machine, for fixtures that need something of it."""
    return request.config.stash[_MACHINE]


def summary(untested: Mapping[str, int]) -> list[str]:
    """The last lines of a run: what was not tested, and why; none where all was.

    Args:
        untested: how many tests were skipped, by the words that they were skipped with.
    """
    lines: list[str] = []
    for prefix, heading in reversed(_HEADINGS.items()):
        found = {
            said.removeprefix(prefix): count for said, count in untested.items() if said.startswith(prefix)
        }
        if found:
            lines.append(heading)
            ordered = sorted(found.items(), key=lambda each: -each[1])
            lines += [f"  {_tests(count)}: {why}" for why, count in ordered]
    return lines


def _tests(count: int) -> str:
    return "1 test" if count == 1 else f"{count} tests"


class _Untested:
    """What was not tested in the whole run, by any process: each report of a test arrives here.

    Args:
        config: the run's.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._counts: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count what was not tested, by reason."""
        if report.skipped and isinstance(report.longrepr, tuple):
            said = report.longrepr[2].removeprefix("Skipped: ")
            if said.startswith(tuple(_HEADINGS)):
                self._counts[said] += 1

    @pytest.hookimpl(trylast=True)
    def pytest_unconfigure(self) -> None:
        """Write the last lines, behind pytest's own."""
        lines = summary(self._counts)
        for line in lines:
            self._config.get_terminal_writer().line(line)
        path = self._config.getoption("--untested")
        if path:
            Path(path).write_text("".join(f"{line}\n" for line in lines))
