"""What the tests of virtual machines share: how long they wait, how they ask inside, and how they end."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

from tests.e2e.lab import Person

WITHIN = 420
"""Seconds for what waits for a boot: emulated, on a machine that runs other tests too."""

NOT_GREETED = ("banner exchange", "kex_exchange_identification")
"""What OpenSSH reports of a server that has not greeted."""

ALL = bool(os.environ.get("IRONS_TEST_VM"))
only_in_test_vm = pytest.mark.skipif(not ALL, reason="only make test-vm runs it")


def run_inside(
    person: Person, name: str, *words: str, text: str | None = None, within: float = WITHIN
) -> subprocess.CompletedProcess[str]:
    """Run a program in a guest over SSH.

    A guest that is emulated on a busy machine may not greet OpenSSH in its 30 seconds, or reset the connection before it does. Nothing
    ran there then, so it is asked again.
    """
    deadline = time.monotonic() + WITHIN
    while True:
        done = person.run("exec", name, "--", *words, text=text, timeout=within)
        late = done.returncode != 0 and any(said in done.stderr for said in NOT_GREETED)
        if not late or time.monotonic() > deadline:
            return done


def inside(
    person: Person, name: str, script: str, within: float = WITHIN
) -> subprocess.CompletedProcess[str]:
    """Run a shell script in a guest; see `run_inside`."""
    return run_inside(person, name, "sh", "-c", script, within=within)


def status(person: Person, name: str) -> dict[str, str]:
    """What `irons status` knows of a sandbox."""
    found: dict[str, str] = json.loads(person.ok("status", name, "-o", "json"))["metadata"]
    return found


def end_all(person: Person) -> None:
    """Destroy what a test made, and see that none of its disks and layers is left."""
    for each in json.loads(person.ok("list", "-o", "json")):
        person.ok("destroy", each["name"], "--force", timeout=180)
    for snapshot in json.loads(person.ok("snapshot", "list", "-o", "json")):
        person.ok("snapshot", "remove", snapshot["name"])
    person.ok("local", "image", "remove", "debian-vm", timeout=180)
    assert not list(person.home.rglob("*.qcow2"))
    assert not list(person.home.rglob("ly_*"))
