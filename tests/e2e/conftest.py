"""Fixtures of the end-to-end tests: the lab, an image, people with a home of their own, sandboxes that are destroyed again."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.e2e.images import build_tar, build_vm_tar
from tests.e2e.lab import LAB_NEEDS, Lab, Person, make_lab
from tests.machine import Machine
from tests.users import change_users


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here `e2e`, with time for the first test to make the lab, the image and a person."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.e2e)
            item.add_marker(pytest.mark.timeout(1200))


@pytest.fixture(scope="session")
def place(machine: Machine) -> Iterator[Path]:
    """A directory that every user can enter, short enough for sockets, on a machine that runs sandboxes."""
    machine.require(*LAB_NEEDS, "sandboxes", "image")
    made = Path(tempfile.mkdtemp(prefix="irons-e2e-"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="session")
def lab(place: Path) -> Iterator[Lab]:
    """The tests' own host and internet."""
    with make_lab(place) as made:
        yield made


@pytest.fixture(scope="session")
def image_tar(place: Path) -> Path:
    """The default image, built once from this machine's own package mirrors, as a tar file."""
    ready = os.environ.get("IRONS_TEST_IMAGE")
    if ready:
        return Path(ready)
    tar = place / "image.tar"
    return build_tar(place / "builder", tar, ["build", "--include", "git"], ["export", str(tar)])


@pytest.fixture(scope="session")
def vm_image(place: Path) -> Path:
    """The image for virtual machines as a tar file: given, or built."""
    ready = os.environ.get("IRONS_TEST_VM_IMAGE")
    return Path(ready) if ready else build_vm_tar(place, "python3-minimal")


@pytest.fixture(scope="session")
def make_person(lab: Lab, place: Path, image_tar: Path) -> Iterator[Callable[..., Person]]:
    """Make people with a home, a key and the image; what they leave running is ended, of each whatever becomes of the others."""
    numbers = itertools.count(1)
    ends = ExitStack()

    def make(
        *,
        program: tuple[str, ...] = (sys.executable, "-m", "irons"),
        user: str | None = None,
        config: str = "",
        image: bool = True,
    ) -> Person:
        home = place / f"p{next(numbers)}"
        for directory in (home, home / "run", home / ".ssh", home / ".config", home / ".config/irons"):
            directory.mkdir(mode=0o700)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(home / ".ssh/id_ed25519")], check=True
        )
        (home / ".config/irons/config.toml").write_text(config)
        if user:
            subprocess.run(["chown", "-R", f"{user}:", str(home)], check=True)
        person = Person(lab, home, program, user)
        ends.callback(person.run, "local", "uninstall", "--purge", "--yes", timeout=180)
        if image:
            person.ok("local", "image", "import", str(image_tar), "--as", "debian", timeout=300)
        return person

    with ends:
        yield make


@pytest.fixture(scope="session")
def install(place: Path) -> Callable[..., Path]:
    """Install packages where every user can run them, by an interpreter that every user can; gives their programs' directory."""
    python = next(
        found
        for found in (os.path.realpath(sys.executable), "/usr/bin/python3")
        if all(Path(found).parents[depth].stat().st_mode & 1 for depth in range(len(Path(found).parents)))
    )

    def install(name: str, *packages: str) -> Path:
        room = place / name
        uv = [sys.executable, "-m", "uv"]
        for words in (
            ["venv", "--quiet", "--python", python, str(room)],
            ["pip", "install", "--quiet", "--python", str(room / "bin/python"), *packages],
        ):
            subprocess.run([*uv, *words], check=True)
        return room / "bin"

    return install


@pytest.fixture(scope="session")
def public_program(install: Callable[..., Path]) -> tuple[str, ...]:
    """irons, where every user can run it, and none has to compile it at each start."""
    return (str(install("public", "--compile-bytecode", str(Path(__file__).parents[2])) / "irons"),)


@pytest.fixture(scope="session")
def ordinary_user(machine: Machine) -> Iterator[str]:
    """An ordinary user of this machine, with subordinate ids, made for these tests alone."""
    machine.require("users", "usermod")
    name = f"irons{os.getpid() % 100000}"
    change_users("useradd", "--no-create-home", "--shell", "/bin/sh", name)
    try:
        if f"{name}:" not in Path("/etc/subuid").read_text():
            # Each worker of a parallel run has a user, and no two may have the same ids.
            first = 300_000 + 65_536 * int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
            ids = f"{first}-{first + 65_535}"
            change_users("usermod", "--add-subuids", ids, "--add-subgids", ids, name)
        yield name
    finally:
        subprocess.run(["pkill", "-KILL", "-u", name], check=False)
        change_users("userdel", "--force", name)


@pytest.fixture(scope="session")
def _made() -> dict[str, Person]:
    """The people of `person`, by name: each is made once, also where the tests of several modules go to and fro."""
    return {}


@pytest.fixture(scope="session", params=["root", "user"])
def person(
    request: pytest.FixtureRequest,
    ordinary_user: str,
    make_person: Callable[..., Person],
    _made: dict[str, Person],
) -> Person:
    """Someone who uses irons on the lab's host: root, then an ordinary user."""
    if request.param not in _made:
        _made[request.param] = (
            make_person()
            if request.param == "root"
            else make_person(program=request.getfixturevalue("public_program"), user=ordinary_user)
        )
    return _made[request.param]


@pytest.fixture
def sandbox(person: Person, request: pytest.FixtureRequest) -> Iterator[str]:
    """A running sandbox of a fresh account policy: mode `warn`, no rules."""
    name = "s" + str(abs(hash(request.node.nodeid)) % 10**9)
    clear_policy(person)
    person.ok("create", name, timeout=180)
    yield name
    person.run("destroy", name, "--force", timeout=180)
    clear_policy(person)


def clear_policy(person: Person) -> None:
    """Put the account's policy back to how a new one is."""
    api = str(person.home / "run/irons/api.sock")
    with socket.socket(socket.AF_UNIX) as asked:
        running = asked.connect_ex(api) == 0
    if not running:
        person.ok("local", "up")
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=api, verify=False), base_url="http://irons", timeout=60
    ) as client:
        client.put("/egress", json={"mode": "warn", "rules": []}).raise_for_status()
