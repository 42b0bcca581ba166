"""What a daemon may find at its start: each is reported in one clear line, with what to do, and nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.e2e.lab import Person, eventually
from tests.e2e.test_lasting import end


@pytest.fixture(scope="module")
def tester(make_person: Callable[..., Person]) -> Person:
    """Someone whose backend is broken in many ways."""
    return make_person()


def state(person: Person) -> Path:
    """Where the backend of a person keeps its things."""
    return person.home / ".local/state/irons/local"


def refused(person: Person, *words: str, code: int, says: str) -> None:
    """A command fails with this exit code, and its one to three lines have this in them."""
    done = person.run(*words, timeout=180)
    assert done.returncode == code, done.stdout + done.stderr
    assert says in done.stderr
    assert len(done.stderr.strip().splitlines()) <= 3
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("--engine", "warp"), 1, "warp"),
        (("--image", "nope"), 3, "nope"),
        (("--policy", "missing.toml"), 2, "missing.toml"),
        (("--allow", "*.com"), 2, "*.com"),
        (("--memory", "lots"), 2, "lots"),
        (("--mode", "open"), 2, "open"),
    ],
)
def test_a_create_that_makes_no_sense_makes_no_sandbox(
    tester: Person, words: tuple[str, ...], code: int, says: str
) -> None:
    """It is refused with the reason, and no sandbox of that name is there afterwards."""
    refused(tester, "create", "nonsense", *words, code=code, says=says)
    assert tester.run("status", "nonsense").returncode == 3


@pytest.fixture
def without_crun(tester: Person) -> Iterator[str]:
    """The path of crun, which cannot be run on the lab's host for the time of a test."""
    crun = shutil.which("crun")
    assert crun is not None
    subprocess.run([*tester.lab.enter(), "mount", "--bind", os.devnull, crun], check=True)
    yield crun
    subprocess.run([*tester.lab.enter(), "umount", crun], check=True)


def test_what_the_machine_lacks_is_said_by_create_as_by_doctor(tester: Person, without_crun: str) -> None:
    """Without crun doctor names it and its fix, and `create` ends with both before anything is made."""
    done = tester.run("doctor", "-o", "json")
    assert done.returncode == 1, done.stderr
    (failed,) = (check for check in json.loads(done.stdout) if check["name"] == "crun")
    assert not failed["ok"]
    refused(tester, "create", "lacking", code=1, says=f"sandboxes: {failed['what']}\n  {failed['fix']}\n")
    assert tester.run("status", "lacking").returncode == 3


def test_a_bad_policy_file_is_named_by_line(tester: Person) -> None:
    """The line that is invalid is in the message, and no sandbox is made."""
    policy = tester.home / "policy.toml"
    policy.write_text('mode = "deny"\n\n[allow]\n"web.example.test" = ""\n"*.com" = ""\n')
    refused(tester, "create", "nonsense", "--policy", str(policy), code=2, says="line 5")
    assert tester.run("status", "nonsense").returncode == 3


def test_an_image_without_an_ssh_server_is_refused(tester: Person) -> None:
    """An archive that is not a machine gets a line about it, and makes no image."""
    tar = tester.home / "empty.tar"
    subprocess.run(["tar", "-C", "/usr/share/doc", "-cf", str(tar), "."], check=True)
    before = tester.ok("local", "image", "list")
    done = tester.run("local", "image", "import", str(tar), "--as", "empty")
    assert done.returncode in (1, 2), done.stderr
    assert tester.ok("local", "image", "list") == before


def test_stale_sockets_are_replaced(tester: Person) -> None:
    """Sockets of processes that are long gone don't keep the next daemon from starting."""
    tester.ok("list")
    end(tester)
    assert (tester.home / "run/irons/keeper.sock").exists()
    tester.ok("list")


def test_a_taken_ssh_port_is_got_round(tester: Person) -> None:
    """Where another program has a sandbox's port at its start, it gets another one and says so in its status."""
    tester.ok("create", "ported", timeout=180)
    port = int(json.loads(tester.ok("status", "ported", "-o", "json"))["metadata"]["ssh_port"])
    tester.ok("stop", "ported")
    listen = f"import socket, sys; s = socket.create_server(('127.0.0.1', {port})); print('ready', flush=True); sys.stdin.read()"
    squatter = subprocess.Popen(
        [*tester.lab.enter(), "python3", "-c", listen],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert squatter.stdout is not None
        assert squatter.stdin is not None
        assert squatter.stdout.readline() == "ready\n"
        tester.ok("start", "ported")
        assert tester.inside("ported", "id -un").stdout == "irons\n"
        assert json.loads(tester.ok("status", "ported", "-o", "json"))["metadata"]["ssh_port"] != port
    finally:
        squatter.communicate()
        tester.ok("destroy", "ported", "--force")


def test_an_address_that_is_taken_is_told_and_left(tester: Person) -> None:
    """Where `--listen` can't be served it is reported, all else goes on as before; where it can, it is by the time `up` ends."""
    tester.ok("list")
    with squatting(tester) as port:
        refused(tester, "local", "up", "--listen", f"127.0.0.1:{port}", code=1, says="Address already in use")
        tester.ok("list")
        assert not (state(tester) / "server.json").exists()
    tester.ok("local", "up", "--listen", f"127.0.0.1:{port}")
    words = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://127.0.0.1:{port}/sandboxes"]
    asked = subprocess.run([*tester.lab.enter(), *words], capture_output=True, text=True, check=False)
    assert asked.stdout == "401"
    tester.ok("local", "up", "--listen", "off")
    asked = subprocess.run([*tester.lab.enter(), *words], capture_output=True, text=True, check=False)
    assert asked.stdout == "000"


@contextmanager
def squatting(person: Person) -> Iterator[int]:
    """Have another program listen on a port of 127.0.0.1 on the lab's host; gives the port."""
    listen = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); "
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    squatter = subprocess.Popen(
        [*person.lab.enter(), "python3", "-c", listen],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert squatter.stdout is not None
        yield int(squatter.stdout.readline())
    finally:
        squatter.communicate()


def test_a_newer_database_is_not_touched(tester: Person) -> None:
    """A database of a later version is refused with what to do, and is the same afterwards."""
    tester.ok("local", "down")
    database = state(tester) / "irons.db"
    with closing(sqlite3.connect(database)) as connection:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        connection.execute("PRAGMA user_version = 9999")
    try:
        done = tester.run("list", timeout=180)
        assert done.returncode == 1, done.stderr
        assert "newer" in done.stderr
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("PRAGMA user_version").fetchone() == (9999,)
    finally:
        tester.run("local", "down")
        with closing(sqlite3.connect(database)) as connection:
            connection.execute(f"PRAGMA user_version = {version}")
    tester.ok("list")


def test_on_a_full_disk_nothing_passes_unrecorded_and_nothing_is_lost(tester: Person) -> None:
    """With no room for a record a connection is refused; a create fails in one line; with room again all is well."""
    tester.ok("create", "roomy", "--allow", "web.example.test", timeout=180)
    request = "curl -s -o /dev/null -w '%{http_code}' -m 60 http://web.example.test/"
    assert tester.inside("roomy", request).stdout == "200"
    tester.ok("stop", "roomy")
    tester.ok("local", "down")
    with small_disk(tester) as resize:
        tester.ok("start", "roomy")
        assert tester.inside("roomy", request).stdout == "200"
        resize(0)
        tester.inside("roomy", "dd if=/dev/zero of=/home/irons/fill bs=1k count=100000 2>/dev/null")
        passed = len(tester.lab.arrived(kind="http"))
        answers = [tester.inside("roomy", request).stdout for _ in range(20)]
        recorded = len(tester.lab.arrived(kind="http")) - passed
        assert answers[-1] == "000"
        assert recorded == answers.count("200")
        failed = tester.run("create", "late", timeout=180)
        assert failed.returncode != 0
        assert "space" in failed.stderr or "full" in failed.stderr
        assert "Errno" not in failed.stderr
        resize(64)
        tester.inside("roomy", "rm fill")
        eventually(lambda: tester.inside("roomy", request).stdout == "200", what="requests to pass again")
        tester.run("destroy", "late", "--force")
        tester.ok("stop", "roomy")
        tester.ok("local", "down")
    tester.ok("destroy", "roomy", "--force")


@contextmanager
def small_disk(person: Person) -> Iterator[Callable[[int], None]]:
    """Move a person's state to a file system of its own, and back; gives how to leave so many megabytes free on it."""
    inside = ["nsenter", "-t", str(person.lab.host), "-m", "--"]
    room, disk = state(person).parent, person.home / "disk"
    disk.mkdir()

    def do(*words: str) -> None:
        subprocess.run([*inside, *words], check=True)

    def resize(free: int) -> None:
        used = subprocess.run(
            [*inside, "df", "-k", "--output=used", str(room)], capture_output=True, text=True, check=True
        )
        do("mount", "-o", f"remount,size={int(used.stdout.split()[1]) + free * 1024 + 256}k", str(room))

    do("mount", "-t", "tmpfs", "-o", "size=2g,mode=700", "tmpfs", str(disk))
    do("cp", "-a", f"{room}/.", str(disk))
    do("mount", "--move", str(disk), str(room))
    try:
        yield resize
        do("mount", "-o", "remount,size=2g", str(room))
        do("mount", "--bind", str(room), str(disk))
        do("umount", "-l", str(room))
        do("sh", "-c", f"rm -rf {room}/* && cp -a {disk}/. {room}")
    finally:
        subprocess.run([*inside, "umount", "-l", str(disk)], check=False)
        subprocess.run([*inside, "umount", "-l", str(room)], check=False, capture_output=True)


def test_a_read_only_state_directory_is_told(tester: Person) -> None:
    """The daemon that can't write says where, and starts again once it can."""
    tester.ok("local", "down")
    mount = ["nsenter", "-t", str(tester.lab.host), "-m", "--"]
    room = str(tester.home / ".local/state")
    subprocess.run([*mount, "mount", "--bind", room, room], check=True)
    subprocess.run([*mount, "mount", "-o", "remount,bind,ro", room], check=True)
    try:
        refused(tester, "list", code=1, says="is on a read-only file system")
    finally:
        subprocess.run([*mount, "umount", "-l", room], check=True)
    eventually(lambda: tester.run("list").returncode == 0, what="the backend to be well again")
