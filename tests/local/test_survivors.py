"""A purge ends every process of the backend and removes every file, also after one that was interrupted."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from tests.local.people import Person, eventually, removed, slay
from tests.local.test_daemon import ensure

from irons_local.keeper import daemonize
from irons_local.linux import userns_call
from irons_local.paths import Paths

CALL = """
import json, os, subprocess, sys
inside = [sys.executable, "-P", "-m", "irons_local.linux.userns_main", "a", "tests.local.stand_ins.lasting:stay"]
with subprocess.Popen(inside, stdin=subprocess.PIPE, text=True) as helper:
    helper.stdin.write(json.dumps({"dies_with": os.getpid()}))
    helper.stdin.close()
"""


def purge(person: Person) -> subprocess.CompletedProcess[str]:
    """Run a purge as they."""
    return person.run([sys.executable, "-m", "irons", "local", "uninstall", "--purge", "--yes"])


@pytest.mark.parametrize("keeper", [True, False], ids=["keeper", "no-keeper"])
def test_processes_are_found_where_all_their_files_are_gone(person: Person, keeper: bool) -> None:
    """A purge ends keeper, control plane and gateway whose state and runtime directories went before them."""
    _, pid, *_ = ensure(person)
    if not keeper:
        slay(pid)
    for path in (person.paths.state, person.paths.runtime):
        eventually(partial(removed, path), what="what still runs to write no more there")
    done = purge(person)
    assert done.returncode == 0, done.stderr
    named = {row.split("\t")[1] for row in done.stdout.splitlines() if row.startswith("process\t")}
    assert named == ({"keeper"} if keeper else set()) | {"server", "gateway"}
    eventually(lambda: not person.processes(), what="the last process to end")


def test_processes_of_other_state_are_left_alone(person: Person, tmp_path: Path) -> None:
    """A purge of one state directory ends no process that was started for another one of the same user."""
    _, pid, *_ = ensure(person)
    elsewhere = person.home / "elsewhere"
    argv = [sys.executable, "-m", "irons", "local", "uninstall", "--purge", "--yes"]
    done = person.run(["env", f"XDG_STATE_HOME={elsewhere}", f"XDG_RUNTIME_DIR={tmp_path}", *argv])
    assert done.returncode == 0, done.stderr
    assert pid in person.processes()
    assert purge(person).returncode == 0
    eventually(lambda: not person.processes(), what="the last process to end")


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """Directories of a test's own."""
    return Paths(tmp_path / "state", tmp_path / "run").create()


def test_no_daemon_comes_while_a_purge_goes_on(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """A keeper that is started during a purge gives up, and says what may be in its way."""
    monkeypatch.setattr(daemonize, "_END_WITHIN", 0.05)
    barred = daemonize.bar(paths)
    with pytest.raises(daemonize.DaemonizeError, match="an uninstall"):
        daemonize.lock(paths)
    for lock in barred:
        os.close(lock)


def test_a_keeper_that_waited_for_a_purge_locks_the_file_that_is_there(paths: Paths) -> None:
    """A lock on a removed file is worth nothing: the keeper takes the new one."""
    barred = daemonize.bar(paths)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(daemonize.lock, paths)
        eventually(waiting.running, what="a keeper to wait")
        paths.lock.unlink()
        paths.state_lock.unlink()
        for lock in barred:
            os.close(lock)
        taken = waiting.result()
    for lock, path in zip(taken, (paths.lock, paths.state_lock), strict=True):
        assert os.path.samestat(os.fstat(lock), path.lstat())
        os.close(lock)


def test_the_lock_goes_last(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """While anything else of the state is there, so is the lock that keeps others from starting a daemon on it."""
    import asyncio

    from irons_plugins.local import uninstall

    (paths.local / "server.process").write_text("{}")
    before: list[bool] = []

    async def stopped(path: Path) -> None:
        before.append(paths.state_lock.exists())
        if path != paths.state:
            shutil.rmtree(path)

    monkeypatch.setattr(uninstall, "remove_tree", stopped)
    paths.state_lock.touch()
    asyncio.run(uninstall._remove_state(paths))
    assert all(before)
    assert [path.name for path in paths.local.iterdir()] == ["lock"]


@pytest.mark.needs("user-namespaces")
def test_a_removal_ends_with_the_purge_that_began_it(person: Person) -> None:
    """What removes files of subordinate ids is killed with its purge: it would remove those of the next daemon."""
    with person.start([sys.executable, "-c", CALL], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == '{"progress": "began", "done": null}\n'
        helpers = [pid for pid in person.processes() if pid != process.pid]
        assert helpers
        process.kill()
    eventually(lambda: not person.processes(), what="the helpers to end")


@pytest.mark.process
def test_a_call_says_with_whose_end_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever follows a process that was killed removes what it left, which no helper of it may go on making."""
    echo = "import json, sys; print(json.dumps({'ok': json.load(sys.stdin)}))"
    monkeypatch.setattr(userns_call, "program", lambda *_: [sys.executable, "-c", echo])
    got = asyncio.run(userns_call.call("a", "some:function", {"given": 1}))
    assert got == {"given": 1, "dies_with": os.getpid()}
