"""What the processes of the local backend may do, and what they import while they may do more."""

from __future__ import annotations

import codecs
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.local.people import Person

from irons_local.forkserver import confine

pytestmark = pytest.mark.process

OTHERS = """
import sys
before = set(sys.modules)
__import__({module!r})
for name in sorted(set(sys.modules) - before):
    if "site-packages" in (getattr(sys.modules[name], "__file__", None) or ""):
        print(name)
"""


@pytest.mark.parametrize("module", ["irons_local.keeper.keeper", "irons_local.forkserver.confine"])
def test_no_code_of_third_parties_is_imported_with_all_rights(module: str) -> None:
    """The keeper, and what root's gateway runs before it has given up its rights, import the standard library and our own code only."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-I", "-c", OTHERS.format(module=module)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []


def test_processes_are_started_isolated(person: Person) -> None:
    """Keeper, warm process and control plane heed neither the variables nor the directory of whoever starts them.

    The gateway's processes do not even get those that may hold a password.
    """
    trap = person.home / "trap"
    trap.mkdir()
    for name in ("json.py", "irons.py", "sitecustomize.py", "usercustomize.py"):
        (trap / name).write_text(f"open({str(person.home / 'caught')!r}, 'w').close()\n")
    hostile = {"PYTHONPATH": str(trap), "PYTHONSTARTUP": str(trap / "json.py")}
    environ = {**person.environ, **hostile, "https_proxy": "http://somebody:secret@proxy.example.test:3128"}
    program = (
        "import json, os, sys; sys.path[:] = [place for place in sys.path if 'trap' not in place]\n" + START
    )
    done = subprocess.run(
        [*person.prefix, sys.executable, "-I", "-c", program, json.dumps(environ)],
        env=person.environ,
        cwd=trap,
        capture_output=True,
        text=True,
        check=True,
    )
    try:
        pids = json.loads(done.stdout)
        assert len(pids) == 3
        warm = pids[-1]
        for pid in pids:
            assert b"-I" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            known = b"secret@proxy" in Path(f"/proc/{pid}/environ").read_bytes()
            # The control plane fetches images; the gateway's processes need no proxy of a person's.
            assert known == (pid != warm)
        assert not (person.home / "caught").exists()
    finally:
        subprocess.run(
            [*person.prefix, sys.executable, "-m", "irons", "local", "down"],
            env=person.environ,
            cwd=person.home,
            check=True,
        )


def test_an_irons_that_isolation_would_hide_is_started_all_the_same() -> None:
    """Where irons is found by PYTHONPATH alone its processes are started without `-I`, which would find none."""
    printed = subprocess.run(
        [sys.executable, "-c", HIDDEN], env={}, capture_output=True, text=True, check=True
    ).stdout
    assert printed.split() == ["-I", "-P"]


HIDDEN = """
import importlib.util, sys, types
from irons_local import interpreter
print(*interpreter.options())
real = importlib.util.find_spec
elsewhere = types.SimpleNamespace(origin="/elsewhere/starlette/__init__.py")
importlib.util.find_spec = lambda name: elsewhere if name == "starlette" else real(name)
print(*interpreter.options())
"""

START = """
from irons_local.daemon import client as daemon
from irons_local.paths import Paths
environ = json.loads(sys.argv[1])
found = daemon.ensure(Paths.of(environ), environ)
while found.nursery is None or found.nursery.pid is None:
    found = daemon.status(Paths.of(environ))
print(json.dumps([found.pid, found.server, found.nursery.pid]))
"""


def test_every_codec_of_the_gateway_is_loaded_before_its_rights_are_gone() -> None:
    """Python imports a codec when it is first used, from files that root's gateway may be unable to read by then."""
    local = Path(confine.__file__).parents[1]
    named = re.compile(
        r"""(?:encoding=|(?:en|de)code\(|read_text\(|write_text\([^()]*(?:\([^()]*\))?[^()]*, )"([a-z0-9_-]+)\""""
    )
    found = {
        codecs.lookup(name).name
        for path in (*local.rglob("*.py"), *local.parents[1].rglob("core/irons_policy/*.py"))
        for name in named.findall(path.read_text("utf-8"))
    }
    assert {"ascii", "utf-8"} <= found <= {codecs.lookup(name).name for name in confine.CODECS}
