"""The files of irons are replaced, with most modules under other names, while a daemon of before runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from irons_local.linux.namespaces import birth
from tests.e2e.lab import Person, eventually
from tests.e2e.test_kills import api_answers, seen_since, session
from tests.e2e.test_upgrade import ROOT, another_python

BEFORE = "ac13a70"
"""The last commit before the modules moved."""
PARTS = ("core", "plugins", "repl")


@pytest.fixture
def before(make_person: Callable[..., Person]) -> Iterator[tuple[Person, Path]]:
    """Someone with the irons of before the move, and the tree that it is run from."""
    archive = subprocess.run(["git", "-C", str(ROOT), "archive", BEFORE], capture_output=True, check=False)
    if archive.returncode:
        pytest.skip(f"this is no clone with the history of irons: {BEFORE} is not in it")
    person = make_person()
    tree = person.home / "tree"
    tree.mkdir(mode=0o755)
    subprocess.run(["tar", "-x", "-C", str(tree)], input=archive.stdout, check=True)
    python = another_python(person, person.home / "before", tree=tree)
    older = replace(person, program=(str(python), "-m", "irons"))
    yield older, tree
    for words in (["destroy", "one", "--force"], ["local", "down"]):
        older.run(*words)


def recorded(person: Person) -> Counter[str]:
    """How many events each destination has, without those of connections that came while there was no gateway."""
    return Counter(event["host"] for event in person.events("one") if event["cause"] != "no-policy")


def test_a_daemon_goes_on_when_its_files_move_under_it(before: tuple[Person, Path]) -> None:
    """Its keeper starts the gateway and the control plane by their old names: connections go on, each recorded once."""
    person, tree = before
    person.ok("create", "one", timeout=180)
    mark = len(person.lab.arrivals())
    rows = json.loads(person.ok("local", "status", "-o", "json"))
    keeper = next(row["pid"] for row in rows if row["process"] == "keeper")
    others = [row["pid"] for row in rows if row["pid"] and row["pid"] != keeper]
    with session(person, "one") as inside:
        assert inside.request() == "200"
        for part in PARTS:
            (tree / part).rename(tree / f"{part}.before")
            shutil.copytree(ROOT / part, tree / part, ignore=shutil.ignore_patterns("__pycache__"))
        for pid in others:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: inside.request() == "200", what="the gateway of now")
        eventually(lambda: api_answers(person), what="the control plane of now")
        arrived = {address for address in seen_since(person, mark) if address.startswith("203.0.113.")}
        assert len(arrived) >= 2
        eventually(lambda: arrived <= set(recorded(person)), what="the events")
        assert max(recorded(person).values()) == 1
    assert birth(keeper) is not None
    assert person.inside("one", "id -un").stdout == "irons\n"
