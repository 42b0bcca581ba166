"""Users that tests make and remove, and keepers of theirs."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from tests.machine import Machine
from tests.users import change_users

from irons.version import __version__
from irons_local.ipc.link import Link
from irons_local.linux.namespaces import started
from irons_local.paths import Paths

ROOT = Path(__file__).parents[2]
STAND_INS = Path(__file__).parent / "stand_ins"
ENTERING = Path(__file__).parent / "entering.py"
CELL_NEEDS = ("user-namespaces", "nft", "ip")
"""What a cell, and looking into it, need of the machine, as `tests.machine` knows it."""
PYTHON = "/usr/bin/python3"
"""The system's Python: what runs inside a cell as root may not read another user's."""
WHOEVER = pytest.mark.parametrize("person", ["root"], indirect=True, scope="module")
"""Marks a test that shows the same whoever runs it: root alone does, who has another user's processes to keep as well."""


def eventually(true: Callable[[], Any], *, within: float = 200.0, what: str = "it to come true") -> Any:
    """The first true answer, asked for again and again until `within` seconds are over; then the test fails."""
    deadline = time.monotonic() + within
    while True:
        answer = true()
        if answer:
            return answer
        assert time.monotonic() < deadline, f"waited {within} s for {what}"
        threading.Event().wait(0.02)


def slay(*pids: int) -> None:
    """Kill processes, and wait until they are gone: one that stands still when it is killed goes on for a while."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    eventually(lambda: all(started(pid) is None for pid in pids), what="the killed to be gone")


def removed(path: Path) -> bool:
    """Remove a directory in which a process may just make or remove a file; tell whether it is gone."""
    shutil.rmtree(path, ignore_errors=True)
    return not path.exists()


@dataclass(frozen=True)
class Person:
    """A user with a home of their own; `prefix` goes before a command that runs as them."""

    name: str
    uid: int
    home: Path
    prefix: tuple[str, ...]

    @property
    def environ(self) -> dict[str, str]:
        """Their environment."""
        return {
            "HOME": str(self.home),
            "PATH": "/usr/bin:/bin",
            "LANG": "C.UTF-8",
            "XDG_STATE_HOME": str(self.home / "state"),
            "XDG_RUNTIME_DIR": str(self.home / "runtime"),
            "PYTHONPATH": str(ROOT),
            **{name: value for name, value in os.environ.items() if name.startswith("COVERAGE")},
        }

    @property
    def paths(self) -> Paths:
        """Where their local backend is."""
        return Paths.of(self.environ, self.uid)

    def start(self, argv: Sequence[str], **options: Any) -> subprocess.Popen[str]:
        """Start a command as them."""
        return subprocess.Popen([*self.prefix, *argv], env=self.environ, cwd=self.home, text=True, **options)

    def run(self, argv: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command as them."""
        return subprocess.run(
            [*self.prefix, *argv],
            env=self.environ,
            cwd=self.home,
            text=True,
            capture_output=True,
            timeout=300,
            check=False,
            **options,
        )

    def link(self) -> Link:
        """A link to their keeper, made with their user id."""
        os.seteuid(self.uid)
        try:
            return Link.to(self.paths.keeper_socket, 100)
        finally:
            os.seteuid(os.getuid())

    def processes(self) -> list[int]:
        """Processes of theirs, zombies left out; for root, those of this home."""
        found = []
        for entry in Path("/proc").iterdir():
            with suppress(OSError, ValueError):
                pid = int(entry.name)
                if self.uid:
                    state = entry.joinpath("stat").read_text().rpartition(")")[2].split()[0]
                    ours = entry.stat().st_uid == self.uid and state != "Z"
                else:
                    ours = f"HOME={self.home}".encode() in entry.joinpath("environ").read_bytes().split(b"\0")
                if ours:
                    found.append(pid)
        return found


@contextmanager
def root_person() -> Iterator[Person]:
    """Root, in a home of the test's own."""
    with _home(0) as home:
        yield from _cleaned(Person("root", 0, home, ()))


@contextmanager
def ordinary_person() -> Iterator[Person]:
    """An ordinary user with subordinate ids, made for the test and removed after it."""
    name = f"irons-test-{os.getpid()}"
    change_users("useradd", "--no-create-home", "--shell", "/bin/sh", name)
    try:
        account = pwd.getpwnam(name)
        with _home(account.pw_uid) as home:
            yield from _cleaned(Person(name, account.pw_uid, home, (*_readable(), *_as(account))))
    finally:
        change_users("userdel", "--force", name)
        subprocess.run(["groupdel", name], check=False, capture_output=True)


@contextmanager
def another_home(person: Person) -> Iterator[Person]:
    """The same user with another home, and so with places of their own for a keeper."""
    with _home(person.uid) as home:
        yield from _cleaned(replace(person, home=home))


def _cleaned(person: Person) -> Iterator[Person]:
    try:
        yield person
    finally:
        eventually(lambda: not _killed(person), what="the last process to end")


def _killed(person: Person) -> list[int]:
    """Kill what runs, and what that started in between; gives what was there."""
    found = person.processes()
    for pid in found:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return found


@contextmanager
def _home(uid: int) -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="irons-test-"))
    try:
        (home / "runtime").mkdir(mode=0o700)
        for path in (home, home / "runtime"):
            os.chown(path, uid, -1)
        yield home
    finally:
        shutil.rmtree(home)


def _as(account: pwd.struct_passwd) -> list[str]:
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups", "--"]


def _readable() -> list[str]:
    """What goes before a command whose user may not enter a directory that the Python of the tests lies in.

    In a mount namespace of its own, that directory becomes one that has only the Python in it.
    """
    python = Path(sys.base_prefix)
    closed = [parent for parent in reversed(python.parents) if not parent.stat().st_mode & 0o001]
    if not closed:
        return []
    script = (
        'python=$1 closed=$2; shift 2; held=$(mktemp -d) && mount --bind "$python" "$held" && mount -t tmpfs -o mode=755 none "$closed"'
        ' && mkdir -p "$python" && mount --bind "$held" "$python" && umount "$held" && rmdir "$held" && exec "$@"'
    )
    return [
        "unshare",
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        script,
        "sh",
        str(python),
        str(closed[0]),
    ]


@dataclass
class Kept:
    """A keeper with stand-ins, of one person.

    Attributes:
        patience: seconds for which connections wait for a worker that is not there; then the keeper refuses them.
    """

    person: Person
    version: str = __version__
    machine: Machine | None = None
    workers: int = 1
    gateway: str = "tests.local.stand_ins.gateway"
    patience: float = 600.0
    process: subprocess.Popen[str] | None = None
    cells: int = 0
    _left: ExitStack = field(default_factory=ExitStack)

    def start(self, inherited: Sequence[int] = ()) -> dict[str, Any]:
        """Start it, with these descriptors open, and wait until all is ready; gives its status."""
        argv = [
            sys.executable,
            "-P",
            str(STAND_INS / "keeper.py"),
            self.gateway,
            str(STAND_INS / "server.py"),
            self.version,
            str(self.workers),
            str(self.patience),
        ]
        with (self.person.home / "keeper.err").open("a") as err:
            self.process = self.person.start(argv, stdout=subprocess.PIPE, stderr=err, pass_fds=inherited)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n", (self.person.home / "keeper.err").read_text()
        self.ask("ready")
        if not (self.person.paths.gateway / "broken").exists():
            eventually(lambda: all(each["pid"] for each in self.status()["gateways"]), what="the workers")
        return self.status()

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """Ask it something; descriptors of the answer are closed."""
        with self.person.link() as link:
            message = link.request(op, **fields)
            message.close()
            return message.body

    def status(self) -> dict[str, Any]:
        """How it is."""
        return self.ask("status")

    def worker_of(self, cell: str) -> dict[str, Any]:
        """How the worker is that serves a cell."""
        (found,) = [each for each in self.status()["gateways"] if cell in each["cells"]]
        worker: dict[str, Any] = found
        return worker

    def replaced(self, cell: str, before: int) -> dict[str, Any]:
        """How the worker of a cell is, once it is another process than `before` and has reported that it lives."""

        def other() -> Any:
            found = self.worker_of(cell)
            return found["pid"] not in (None, before) and found["memory"] and found

        worker: dict[str, Any] = eventually(other, what="another worker")
        return worker

    def make(self) -> str:
        """Make a cell, and wait until the gateway has it; the test is skipped where none can be made."""
        if self.machine is not None:
            self.machine.require(*CELL_NEEDS)
        self.cells += 1
        name = f"sb_{self.cells:016x}"
        self.ask("cell.make", cell=name)
        eventually(lambda: self.heard(attach=name), what="the gateway to have the cell")
        return name

    @contextmanager
    def entering(
        self, cell: str, *argv: str, more: Sequence[int] = (), **options: Any
    ) -> Iterator[subprocess.Popen[str]]:
        """Start a program in a cell, as its root; `more` are descriptors that close when it begins."""
        with self.person.link() as link:
            message = link.request("cell.namespaces", cell=cell)
        try:
            fds = [*message.fds, *more]
            words = [sys.executable, "-P", str(ENTERING), ",".join(map(str, fds)), *argv]
            with self.person.start(words, pass_fds=fds, **options) as process:
                yield process
        finally:
            message.close()

    def inside(self, cell: str, *argv: str) -> tuple[int, str]:
        """Run a program in a cell: its exit code and what it wrote."""
        with self.entering(cell, *argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
            output, _ = process.communicate(timeout=300)
        return process.returncode, output

    def python(self, cell: str, program: str) -> str:
        """Run a Python program in a cell, which must succeed."""
        code, output = self.inside(cell, PYTHON, "-c", program)
        assert code == 0, output
        return output.strip()

    def background(self, cell: str, *argv: str) -> dict[str, int]:
        """Start a program in a cell and leave it running until the end; gives its `pid` and when it `started`."""
        begun, beginning = os.pipe()
        process = self._left.enter_context(self.entering(cell, *argv, more=[beginning]))
        self._left.callback(process.kill)
        os.close(beginning)
        with os.fdopen(begun, "rb") as pipe:
            pipe.read()
        return {"pid": process.pid, "started": started(process.pid) or 0}

    def judged(self, cell: str, host: str = "203.0.113.7", port: int = 443) -> str:
        """What a program inside gets when it connects somewhere: from the stand-in, where it wanted to go."""
        return self.python(cell, CONNECT.format(host=host, port=port))

    def heard(self, **wanted: Any) -> list[dict[str, Any]]:
        """What the gateway noted with these values."""
        path = self.person.paths.gateway / "heard.jsonl"
        notes = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [note for note in notes if wanted.items() <= note.items()]

    def kill(self) -> None:
        """End the keeper as the kernel would for want of memory; when this is over it is gone."""
        os.kill(self.status()["pid"], signal.SIGKILL)
        self.ended()

    def down(self) -> None:
        """End it and the others properly, and what was left running in cells."""
        self._left.close()
        if self.process is not None:
            self.ask("down")
            self.ended()

    def ended(self) -> None:
        """Wait for the end of the keeper."""
        assert self.process is not None
        assert self.process.stdout is not None
        self.process.wait(timeout=100)
        self.process.stdout.close()
        self.process = None


@contextmanager
def keeping(
    person: Person,
    *,
    version: str = __version__,
    machine: Machine | None = None,
    workers: int = 1,
    patience: float = Kept.patience,
) -> Iterator[Kept]:
    """A running keeper with stand-ins, ended afterwards with all that was left running in its cells."""
    keeper = Kept(person, version, machine, workers, patience=patience)
    for name in (
        *(f"gateway/{each}" for each in ("broken", "stuck", "deaf", "heard.jsonl", "beats", "lies")),
        "broken",
    ):
        (person.paths.local / name).unlink(missing_ok=True)
    try:
        keeper.start()
        yield keeper
    finally:
        keeper.down()


CONNECT = """
import socket
try:
    with socket.create_connection(("{host}", {port}), timeout=100) as sock:
        print(sock.makefile().read())
except OSError as error:
    print(type(error).__name__)
"""
