r"""A pytest plugin for irons and for authors of its plugins: `pytest -p irons.testing`, or `pytest_plugins = ["irons.testing"]`.

Fixtures:

`irons_env`
    An environment of the test's own: home and XDG directories below `tmp_path`, no third-party plugins, no colour, and no local
    backend that is started.
`fake_api`
    A `FakeApi` that listens: a plain v0 server, as the hosted one was. `fake_api.fail(faults.error(500))` breaks the next request.
`own_api`
    The same with all that irons' own server adds.
`run_irons`
    A `Runner` whose calls go to `fake_api` (or to `own_api` where the test takes that one too).

    def test_greets(run_irons, fake_api):
        fake_api.add("one")
        run_irons.plugins().register(my_plugin, "greet")
        assert run_irons("greet", "one").ok().out == "hello one\n"
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from irons.testing import faults
from irons.testing.fake_api import EXTENSIONS, FakeApi
from irons.testing.fake_state import Call, FakeSandbox
from irons.testing.faults import Fault
from irons.testing.runner import Outcome, Runner

__all__ = ["EXTENSIONS", "Call", "FakeApi", "FakeSandbox", "Fault", "Outcome", "Runner", "faults"]


@pytest.fixture
def irons_env(tmp_path: Path) -> dict[str, str]:
    """An environment of the test's own."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "run").mkdir(mode=0o700)
    return {
        "HOME": str(home),
        "XDG_RUNTIME_DIR": str(home / "run"),
        "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
        "XDG_CONFIG_HOME": str(home / ".config"),
        "XDG_STATE_HOME": str(home / ".local/state"),
        "XDG_CACHE_HOME": str(home / ".cache"),
        "IRONS_PLUGINS": "",
        "IRONS_NO_START": "1",
        "NO_COLOR": "1",
        "COLUMNS": "120",
    }


@pytest.fixture
def fake_api() -> Iterator[FakeApi]:
    """A plain v0 server that listens."""
    with FakeApi() as api:
        yield api


@pytest.fixture
def own_api() -> Iterator[FakeApi]:
    """A v0 server that listens, with all that irons' own adds."""
    with FakeApi(extensions=EXTENSIONS) as api:
        yield api


@pytest.fixture
def run_irons(request: pytest.FixtureRequest, irons_env: dict[str, str]) -> Runner:
    """Calls of `irons` against the fake API of the test."""
    which = "own_api" if "own_api" in request.fixturenames else "fake_api"
    api: FakeApi = request.getfixturevalue(which)
    return Runner({**irons_env, "IRONS_API_URL": api.url})
