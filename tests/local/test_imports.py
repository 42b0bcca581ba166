"""What each process of the local backend imports: an exact list of our own modules and of third-party packages."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.local.people import STAND_INS, Person, eventually

from irons_local.ipc.framing import LinkError

IMPORTS = Path(__file__).with_name("imports.json")
"""By process: the modules of irons, and the packages of others. `python tests/local/test_imports.py` writes it."""

SERVER = {"anyio", "h11", "idna", "pluggy", "publicsuffixlist", "starlette"}
"""Packages of others that the control plane imports; what these import in turn differs by version."""
TELL = ("-I", "-X", "importtime")
QUIET = {name: value for name, value in os.environ.items() if not name.startswith(("COVERAGE", "PYTHON"))}
INSIDE = "irons_local.linux.userns_main"
ALONE: dict[str, Sequence[str]] = {
    "keeper, before it serves": ("-c", "import irons_local.keeper.keeper"),
    "gateway, before it drops rights": ("-c", "import irons_local.forkserver.confine"),
    "engine's forkserver and boot": ("-m", "irons_local.engines.namespace.forkserver", "99"),
    "boot of a virtual machine": ("-m", "irons_local.engines.vm.boot"),
    "take the kernel of machines": ("-m", INSIDE, "a", "irons_local.images.bootable.kernel_kit:take"),
    "export a machine's disk": ("-m", INSIDE, "a", "irons_local.engines.vm.saved.whole:write"),
    "make a machine's disk": ("-m", INSIDE, "a", "irons_local.images.bootable.disk:make"),
    "amend": ("-m", "irons_local.engines.namespace.amend"),
    "announce": ("-m", "irons_local.engines.namespace.announce"),
    "unpack": ("-m", INSIDE, "a", "irons_local.images.inside.unpack:unpack"),
    "pack": ("-m", INSIDE, "a", "irons_local.images.inside.pack:pack"),
    "clone": ("-m", INSIDE, "a", "irons_local.images.inside.cloning:clone"),
    "count": ("-m", INSIDE, "a", "irons_local.images.inside.counting:count"),
    "merge layers": ("-m", INSIDE, "a", "irons_local.images.inside.stacking:stack"),
    "merge disks": ("-m", INSIDE, "a", "irons_local.engines.vm.merge.flatten:flatten"),
    "mask": ("-m", INSIDE, "a", "irons_local.images.inside.mask:hide"),
    "collect the kit": ("-m", INSIDE, "a", "irons_local.images.kit.collect:collect"),
    "remove a tree": ("-m", INSIDE, "a", "irons_local.linux.remove_tree:empty_inside"),
    "doctor's probe": ("-m", INSIDE, "a", "irons_local.doctor.probe:trial"),
}
"""Programs that end by themselves once they are given nothing to do."""
FULL_RIGHTS = {*ALONE, "keeper"}
"""Processes that have all rights of their user while they import; the gateway's worker imports after it dropped them."""


def told(text: str, start: frozenset[str]) -> set[str]:
    """The modules that an interpreter reported it imported, without those of its own start."""
    lines = [line for line in text.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines} - start


def split(modules: set[str]) -> dict[str, list[str]]:
    """Our own modules by name, and the packages of others; the standard library is left out."""
    tops = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names
    # The interpreter tells of what is only looked for, too.
    others = sorted(top for top in tops if not top.startswith(("_", "irons", "imported")) and find_spec(top))
    return {"irons": sorted(name for name in modules if name.startswith("irons")), "others": others}


def at_start() -> frozenset[str]:
    """What an interpreter of this environment imports before it runs anything, such as what measures coverage."""
    done = subprocess.run(
        [sys.executable, *TELL, "-c", "pass"], env=QUIET, capture_output=True, text=True, check=True
    )
    return frozenset(told(done.stderr, frozenset()))


def alone(words: Sequence[str]) -> dict[str, list[str]]:
    """What a program imports that is given nothing to do."""
    done = subprocess.run(
        [sys.executable, *TELL, *words], env=QUIET, input="", capture_output=True, text=True, check=False
    )
    return split(told(done.stderr, at_start()))


def expected() -> dict[str, dict[str, list[str]]]:
    """The list."""
    found: dict[str, dict[str, list[str]]] = json.loads(IMPORTS.read_text("utf-8"))
    return found


@pytest.mark.process
@pytest.mark.parametrize("name", ALONE)
def test_a_small_process_imports_what_is_listed(name: str) -> None:
    """A new import in it is a decision: it costs time in every create, and it may run with rights."""
    assert alone(ALONE[name]) == expected()[name]


@pytest.fixture(scope="module")
def running(person: Person) -> dict[str, dict[str, list[str]]]:
    """What keeper, gateway and control plane of one person imported, from their start until they serve."""
    return running_of(person)


def running_of(person: Person) -> dict[str, dict[str, list[str]]]:
    """Start them, wait until they serve, end them, and read what they reported."""
    environ = {name: value for name, value in person.environ.items() if not name.startswith("COVERAGE")}
    log = person.home / "imports.err"
    argv = [*person.prefix, sys.executable, *TELL, str(STAND_INS / "importing.py")]
    with (
        log.open("w") as err,
        subprocess.Popen(
            argv, env=environ, cwd=person.home, stdout=subprocess.PIPE, stderr=err, text=True
        ) as keeper,
    ):
        assert keeper.stdout is not None
        assert keeper.stdout.readline() == "ready\n", log.read_text()
        try:
            with person.link() as link:
                link.request("ready").close()
                eventually(
                    lambda: all(
                        each["pid"] and each["memory"] for each in link.request("status").body["gateways"]
                    ),
                    what="the worker to say that it serves",
                )
        finally:
            keeper.terminate()
            keeper.wait(60)
    start = at_start()
    logs = person.paths.logs
    server = split(told((logs / "server.log").read_text(), start))
    return {
        "keeper": split(told(log.read_text(), start)),
        "gateway": split(told((logs / "gateway.log").read_text(), start)),
        "server": {**server, "others": sorted(SERVER & set(server["others"]))},
    }


@pytest.mark.parametrize("name", ["keeper", "gateway", "server"])
def test_a_process_of_the_daemon_imports_what_is_listed(
    running: dict[str, dict[str, list[str]]], name: str
) -> None:
    """From its start until it serves, each of the three imports our modules and the packages of others that are listed."""
    assert running[name] == expected()[name]


def test_nothing_with_rights_imports_code_of_others() -> None:
    """The keeper, what precedes the gateway's loss of rights, and each program that enters a cell use the standard library and ours."""
    found = expected()
    assert {name: found[name]["others"] for name in FULL_RIGHTS} == {name: [] for name in FULL_RIGHTS}
    for name in FULL_RIGHTS:
        assert not [module for module in found[name]["irons"] if module.startswith("irons_plugins")]


def write() -> None:
    """Write the list as it is now."""
    from tests.local.people import root_person

    found = {name: alone(words) for name, words in ALONE.items()}
    with root_person() as person:
        found |= running_of(person)
    IMPORTS.write_text(json.dumps(found, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    try:
        write()
    except LinkError as error:
        sys.exit(str(error))
