"""Old names of modules that moved: for one release a running daemon, a unit file or a third party still uses them."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from irons_local.daemon import handover
from irons_plugins.local import handover as moved_handover
from irons_plugins.local.engines import inside

STARTED = {
    "keeper": "irons_local.keeper.keeper",
    "server": "irons_local.control.server",
    "confined": "irons_local.forkserver.confine",
    "gateway.__main__": "irons_local.gateway.__main__",
    "engines.forking": "irons_local.engines.namespace.forkserver",
    "engines.amending": "irons_local.engines.namespace.amend",
    "engines.announcing": "irons_local.engines.namespace.announce",
}


@pytest.mark.parametrize(("old", "new"), STARTED.items(), ids=STARTED)
def test_what_is_started_by_an_old_name_runs_the_module_of_now(old: str, new: str) -> None:
    """The old module has the same `main` as the new one, and runs it when it is started as a program."""
    stand_in = importlib.import_module(f"irons_plugins.local.{old}")
    assert stand_in.main is importlib.import_module(new).main
    assert stand_in.__file__ is not None
    assert 'if __name__ == "__main__":' in Path(stand_in.__file__).read_text("utf-8")


@pytest.mark.process
def test_a_worker_that_is_started_by_its_old_name_says_who_starts_it() -> None:
    """Run as a program it is the gateway's worker, which wants a keeper's link."""
    words = [sys.executable, "-m", "irons_plugins.local.gateway"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the gateway is started by the keeper" in done.stderr


@pytest.mark.process
def test_the_program_that_hands_over_a_connection_is_at_its_old_place() -> None:
    """The command that follows a kept SSH connection was composed before the move: it names the file, and runs it without `site`."""
    programs = [Path(str(each.__file__)) for each in (moved_handover, handover)]
    said = [
        subprocess.run([sys.executable, "-I", "-S", str(each)], capture_output=True, text=True, check=False)
        for each in programs
    ]
    assert said[0].returncode == said[1].returncode != 0
    assert said[0].stderr.splitlines()[-1] == said[1].stderr.splitlines()[-1]


@pytest.mark.parametrize("old", inside.MOVED)
def test_every_function_that_was_run_in_user_namespaces_is_found(old: str) -> None:
    """An older control plane names a function by its old module; what it leads to is there."""
    assert importlib.import_module(inside.MOVED[old])


@pytest.mark.parametrize("module", ["engines", "engines.boot", "engines.conformance", "readiness"])
def test_what_a_third_party_imports_is_the_same_object(module: str) -> None:
    """Names of an old module are the objects of the new ones, so that `except` and `isinstance` agree."""
    old = importlib.import_module(f"irons_plugins.local.{module}")
    for name in old.__all__:
        found = getattr(old, name)
        home = getattr(found, "__module__", "")
        assert getattr(sys.modules[home], name, found) is found if home in sys.modules else True
        assert not home.startswith("irons_plugins")
