"""The command line's door to the daemon, with the real gateway and control plane."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.local.people import (
    CELL_NEEDS,
    PYTHON,
    WHOEVER,
    Person,
    eventually,
    keeping,
    removed,
    root_person,
    slay,
)

from irons.errors import LocalError
from irons_local.daemon import client, proxy
from irons_local.paths import Paths
from irons_plugins.local.handlers import _listens, _memory, listens_text
from irons_plugins.local.listen_options import Listening
from irons_plugins.local.listen_options import kept as listening_kept

ASK = """
import json, sys
from irons.errors import LocalError
from irons_local.daemon import client as daemon
from irons_local.ipc.locate import settle
from irons_local.paths import Paths
try:
    found = daemon.ensure(settle(Paths.of()))
    while None in (pids := [each.pid for each in (*found.workers, found.nursery)]):
        found = daemon.status(settle(Paths.of()))
    print(json.dumps([found.version, found.pid, found.ready, found.gateway, found.server, pids]))
except LocalError as error:
    print(json.dumps({"error": error.message, "hint": error.hint}))
"""


BANNER = """
import socket
with socket.create_server(("127.0.0.1", 22)) as server:
    while True:
        server.accept()[0].sendall(b"SSH-2.0-")
"""


def ensure(person: Person, *prefix: str) -> Any:
    """What `client.ensure` gives when a command of theirs calls it."""
    done = person.run([*prefix, sys.executable, "-c", ASK])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def fresh(person: Person) -> Iterator[Person]:
    """A person without a daemon, and without one afterwards."""
    try:
        yield person
    finally:
        person.run(
            [
                sys.executable,
                "-c",
                "from irons_local.daemon import client as daemon; from irons_local import paths; daemon.down(paths.Paths.of())",
            ]
        )
        eventually(lambda: not person.processes(), what="the daemon to end")


def test_it_is_started_once_and_found_after_that(fresh: Person) -> None:
    """The first command starts all three processes, no one's children; the next ones find them."""
    first = ensure(fresh)
    assert first[2] is True
    assert ensure(fresh) == first
    lines = Path(f"/proc/{first[1]}/status").read_text().splitlines()
    assert int(dict(line.split(":\t") for line in lines)["PPid"]) != os.getpid()
    assert Path(f"/proc/{first[1]}/fd/0").readlink() == Path("/dev/null")


@WHOEVER
def test_local_status_asks_a_daemon_that_runs_for_its_keys(fresh: Person) -> None:
    """While the control plane has the database open no other process opens that, here because it is not found."""
    irons = (sys.executable, "-m", "irons", "local")
    made = fresh.run([*irons, "key", "create", "laptop"])
    assert made.returncode == 0, made.stderr
    database = fresh.paths.database
    database.rename(database.with_suffix(".away"))
    try:
        said = fresh.run([*irons, "status"]).stderr
    finally:
        database.with_suffix(".away").rename(database)
    assert "API keys: 1 admin\n" in said
    assert "these may do all: laptop\n" in said


def test_it_inherits_no_secret_of_the_shell_that_started_it(fresh: Person) -> None:
    """A key that was exported there, and for root the caller's PATH, are in the environment of none of its processes."""
    marker = f"marker-{os.getpid()}"
    told = ("MODEL_API_KEY", "SSH_AUTH_SOCK", "IRONS_API_KEY", "LD_LIBRARY_PATH")
    path = f"{os.environ['PATH']}:/nowhere-{marker}"
    ensure(fresh, "env", f"PATH={path}", *(f"{name}=/nowhere-{marker}" for name in told))
    pids = fresh.processes()
    assert len(pids) >= 3
    for pid in pids:
        variables: list[str] = []
        with suppress(FileNotFoundError, ProcessLookupError):  # it was started for a moment only
            variables = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
        seen = [each.partition("=")[0] for each in variables if marker in each]
        assert seen in ([], ["PATH"]) if fresh.uid else seen == [], pid


@WHOEVER
def test_many_commands_at_once_start_one_daemon(fresh: Person) -> None:
    """Commands that find no daemon at the same moment end up with the same one."""
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: ensure(fresh), range(4)))
    assert [answer[1] for answer in answers] == [answers[0][1]] * 4


def test_each_killed_process_comes_back_by_the_next_command(fresh: Person) -> None:
    """After kill -9 of all three, one command has all three again."""
    first = ensure(fresh)
    slay(first[1], first[3], first[4])
    after = ensure(fresh)
    assert after[2] is True
    assert not {after[1], after[3], after[4]} & {first[1], first[3], first[4]}


def test_a_session_with_another_runtime_directory_finds_the_same_daemon(fresh: Person) -> None:
    """A command in a session that has no runtime directory of its own uses the daemon that runs in another one."""
    first = ensure(fresh)
    assert ensure(fresh, "env", "-u", "XDG_RUNTIME_DIR") == first
    assert not (fresh.home / "state" / "irons" / "run").exists()


def test_a_long_runtime_directory_breaks_no_socket(fresh: Person) -> None:
    """Where the path is longer than the address of a unix socket may be, keeper and API are reached all the same."""
    runtime = fresh.home / ("long" * 30) / ("longer" * 30)
    for directory in (runtime.parent, runtime):
        directory.mkdir(mode=0o700)
        os.chown(directory, fresh.uid, -1)
    longer = ["env", f"XDG_RUNTIME_DIR={runtime}"]
    try:
        assert ensure(fresh, *longer)[2] is True
        asked = "from irons_local.daemon import client as daemon; from irons_local import paths; print(daemon.serves(paths.Paths.of()))"
        assert fresh.run([*longer, sys.executable, "-c", asked]).stdout == "True\n"
    finally:
        down = "from irons_local.daemon import client as daemon; from irons_local import paths; daemon.down(paths.Paths.of())"
        fresh.run([*longer, sys.executable, "-c", down])


def test_a_runtime_directory_that_went_with_its_session_is_mended(fresh: Person) -> None:
    """When the sockets are gone with a session's runtime directory, the unreachable daemon is replaced by a new one."""
    first = ensure(fresh)
    eventually(partial(removed, fresh.paths.runtime), what="the directory to go")
    after = ensure(fresh)
    assert after[2] is True
    assert not {first[1], first[4], *first[5]} & {after[1], after[4], *after[5]}
    eventually(
        lambda: not {first[1], first[4], *first[5]} & set(fresh.processes()), what="the old one to end"
    )


def test_processes_of_a_killed_keeper_are_found_without_its_runtime_directory(fresh: Person) -> None:
    """A gateway and a control plane that no one can reach any more are ended, never served next to new ones."""
    first = ensure(fresh)
    slay(first[1])
    eventually(partial(removed, fresh.paths.runtime), what="what still runs to write no more there")
    after = ensure(fresh)
    assert after[2] is True
    eventually(
        lambda: set(fresh.processes()) == {after[1], after[3], after[4], *after[5]},
        what="the daemon to be alone",
    )


@pytest.mark.needs(*CELL_NEEDS)
def test_an_older_daemon_is_replaced_and_its_cells_live_on(fresh: Person) -> None:
    """A newer client replaces an older daemon, gateway and control plane included, without touching a cell."""
    with keeping(fresh, version="0.0.1") as kept:
        cell = kept.make()
        kept.background(cell, "sleep", "600")
        old = kept.status()
        new = ensure(fresh)
        assert new[2] is True
        assert new[1] != old["pid"]
        kept.ended()
        assert kept.status()["cells"] == 1


@pytest.mark.needs("root")
def test_a_newer_daemon_is_left_alone() -> None:
    """An older client says that the daemon is newer and what to do, and changes nothing."""
    with root_person() as person, keeping(person, version="99.1") as kept:
        with pytest.raises(LocalError, match=r"version 99\.1, newer than") as caught:
            client.ensure(person.paths)
        assert "irons local down" in caught.value.hint
        assert kept.status()["version"] == "99.1"


@pytest.mark.needs("root", *CELL_NEEDS)
def test_a_connection_is_handed_to_openssh() -> None:
    """The descriptor of a connection inside the cell arrives as OpenSSH wants it: one byte with SCM_RIGHTS."""
    with root_person() as person, keeping(person) as kept:
        cell = kept.make()
        kept.background(cell, PYTHON, "-c", BANNER)
        eventually(lambda: "127.0.0.1:22" in kept.inside(cell, "ss", "-Hlnt")[1], what="the server inside")
        ours, theirs = socket.socketpair()
        with ours, theirs:
            proxy.connect_descriptor(cell, theirs.fileno(), person.environ)
            data, fds, _, _ = socket.recv_fds(ours, 10, 4)
        assert data == b"\0"
        with socket.socket(fileno=fds[0]) as connection:
            assert connection.recv(8) == b"SSH-2.0-"
        with pytest.raises(LocalError, match="the sandbox does not run"):
            proxy.connect_descriptor("sb_00000000000000ff", environ=person.environ)
        with (
            Path(os.devnull).open("w") as nowhere,
            pytest.raises(LocalError, match="stdout is not a socket to hand"),
        ):
            proxy.connect_descriptor(cell, nowhere.fileno(), person.environ)


def test_without_a_daemon(tmp_path: Path) -> None:
    """Status, down and connect say that there is none, and start nothing."""
    paths = Paths.of({"XDG_STATE_HOME": str(tmp_path)}, 4242)
    assert client.status(paths) is None
    assert client.down(paths) is False
    with pytest.raises(LocalError, match="does not run"):
        proxy.connect(paths, "sb_0000000000000001")
    with pytest.raises(LocalError, match="does not run"):
        client.restart(paths)
    assert list(tmp_path.iterdir()) == []


def test_a_state_directory_that_cannot_be_used_is_one_clear_line(fresh: Person) -> None:
    """A file in the place of the state directory is named, with nothing started."""
    state = fresh.home / "state" / "irons"
    if state.exists():
        state.rename(fresh.home / "kept-state")
    state.parent.mkdir(exist_ok=True)
    state.write_text("not a directory")
    try:
        said = ensure(fresh)
        assert f"{state} is not a directory" in said["error"]
        assert "doctor" in said["hint"]
        assert fresh.processes() == []
    finally:
        state.unlink()
        if (fresh.home / "kept-state").exists():
            (fresh.home / "kept-state").rename(state)


FORBID = """
outside = os.geteuid()
namespaces.unshare(namespaces.NEWUSER)
Path("/proc/self/uid_map").write_text(f"0 {outside} 1")
Path("/proc/sys/user/max_user_namespaces").write_text("0")
"""

LACKING = {
    "nftables": "mount --bind /dev/null $(readlink -f /usr/sbin/nft)",
    "newuidmap": "mount --bind /dev/null $(readlink -f /usr/bin/newuidmap)",
    "subordinate-ids": "mount --bind /dev/null /etc/subuid",
    "user-namespaces": "true",
}


@pytest.mark.needs("networks", *CELL_NEEDS)
@pytest.mark.parametrize("check", sorted(LACKING))
def test_what_a_machine_lacks_is_named_with_its_check(fresh: Person, check: str) -> None:
    """A cell that cannot be made says what is missing and which doctor check explains it."""
    if fresh.uid == 0 and check in ("newuidmap", "subordinate-ids"):
        pytest.skip("root needs none")
    inner = "import os; from irons_local.keeper.cells.children import *; from irons_local.cell.layout import Ports\n"
    if check == "user-namespaces":
        inner += FORBID
    inner += "child = fork(lambda link: make(link, Ports())); print(Link(child.sock).recv().body['error']['message'])"
    script = f'{LACKING[check]} && exec "$@"'
    prefix = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"]
    lacking = Person(fresh.name, fresh.uid, fresh.home, (*prefix, *fresh.prefix))
    done = lacking.run([sys.executable, "-c", inner])
    assert done.stdout.strip().endswith(f"(see `irons doctor`: {check})"), done.stdout + done.stderr


def test_where_the_server_listens(tmp_path: Path) -> None:
    """`local status` names the socket, the address that `up --listen` was given, and the sandboxes' SSH ports."""
    paths = Paths(tmp_path / "state", tmp_path / "run").create()
    socket_url = f"unix://{paths.api_socket}"
    assert _listens(paths) == (socket_url, "ssh://127.0.0.1:20000-31999")
    plain = Listening.checked("127.0.0.1:7411", None, None, None)
    assert plain is not None
    with listening_kept(paths, plain):
        assert _listens(paths) == (socket_url, "http://127.0.0.1:7411", "ssh://127.0.0.1:20000-31999")
    for name in ("cert", "key"):
        (tmp_path / name).touch()
    wide = Listening.checked("[::]:7411", str(tmp_path / "cert"), str(tmp_path / "key"), "2001:db8::1")
    assert wide is not None
    with listening_kept(paths, wide):
        assert _listens(paths) == (socket_url, "https://[::]:7411", "ssh://[2001:db8::1]:20000-31999")
    assert (
        listens_text(_listens(paths)) == f"{socket_url}, https://[::]:7411, ssh://[2001:db8::1]:20000-31999"
    )


def test_memory_of_a_process_that_only_root_may_look_into(tmp_path: Path) -> None:
    """Where its share is not to be read, as of the warm process for an ordinary user, what is its own is shown."""
    (tmp_path / "7").mkdir()
    assert _memory(7, tmp_path) is None
    (tmp_path / "7" / "status").write_text("VmRSS:\t 900 kB\nRssAnon:\t     300 kB\n")
    assert _memory(7, tmp_path) == 300 << 10
    (tmp_path / "7" / "smaps_rollup").write_text("Rss: 900 kB\nPss:   500 kB\n")
    assert _memory(7, tmp_path) == 500 << 10
    assert _memory(None) is None
