"""The tests' own network: a namespace that plays the user's machine, and behind a route another that plays the internet.

    host  198.51.100.2/30 ── veth ── 198.51.100.1/30  internet (203.0.113.0/24 and 2001:db8:113::/64, all of them its own)

On the host too something listens, on one port of every address, and records what arrives: nothing may.

The whole daemon runs in the host namespace, unchanged; its resolv.conf names the stand-in's name server. Nothing has a name in the
file system, and both namespaces end with the processes that hold them, so an interrupted test leaves nothing behind.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e.registries import lay_registries

HERE = Path(__file__).parent
COMMAND_WITHIN = 400.0
"""Seconds for a command that must end: thirty sandboxes may start at once on two busy processors."""

HOST_PORT = 7000
"""Where something on the host listens."""
HOLD = (
    "import sys, os, ctypes; ctypes.CDLL(None).prctl(1, 9); print(os.getpid(), flush=True); sys.stdin.read()"
)
"""A process that only holds its namespaces, and ends when its standard input does or its parent dies."""


@dataclass(frozen=True)
class Lab:
    """The two namespaces and the directory of the files that the tests made for them."""

    host: int
    internet: int
    arrivals_file: Path
    directory: Path

    def enter(self, *, user: str | None = None) -> list[str]:
        """The words to put before a command so that it runs on the host, as `user` if given."""
        return ["nsenter", "-t", str(self.host), "-n", "-m", "--", *becoming(user)]

    def arrivals(self) -> list[dict[str, Any]]:
        """All that reached the internet so far."""
        return [json.loads(line) for line in self.arrivals_file.read_text().splitlines()]

    def arrived(self, **wanted: Any) -> list[dict[str, Any]]:
        """What reached the internet with these values."""
        return [
            seen for seen in self.arrivals() if all(seen.get(key) == value for key, value in wanted.items())
        ]


def becoming(user: str | None) -> list[str]:
    """The words to put before a command so that it runs as `user`, if given."""
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"] if user else []


def eventually(true: Callable[[], object], *, within: float = 300.0, what: str = "it to come true") -> Any:
    """Return the first true answer of `true`, asked again and again until `within` seconds are over; then fail."""
    deadline = time.monotonic() + within
    pause = 0.01
    while True:
        answer = true()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {within} s for {what}")
        _rest(pause)
        pause = min(pause * 1.5, 0.2)


def _rest(seconds: float) -> None:
    import threading

    threading.Event().wait(seconds)


@contextmanager
def make_lab(directory: Path) -> Iterator[Lab]:
    """Make the network, serve the internet, and take all down again."""
    certificate, key = directory / "cert.pem", directory / "key.pem"
    _make_certificate(certificate, key)
    arrivals = directory / "arrivals.jsonl"
    arrivals.touch()
    resolv = directory / "resolv.conf"
    resolv.write_text("nameserver 203.0.113.53\noptions timeout:2 attempts:3\nsearch search.example.test\n")
    hosts = directory / "hosts"
    hosts.write_text("127.0.0.1 localhost\n198.51.100.2 thehost\n")
    _make_repository(directory / "repo.git")
    lay_registries(directory / "registry")
    processes: list[subprocess.Popen[str]] = []
    try:
        host = _hold(["unshare", "--net", "--mount", "--propagation", "private"], processes)
        net = _hold(["unshare", "--net"], processes)
        _wire(host, net)
        for made, place in ((resolv, "/etc/resolv.conf"), (hosts, "/etc/hosts")):
            target = os.path.realpath(place)
            _run(["nsenter", "-t", str(host), "-m", "mount", "--bind", str(made), target])
        for namespace, port in ((net, ()), (host, (str(HOST_PORT),))):
            words = [
                sys.executable,
                str(HERE / "internet.py"),
                str(arrivals),
                str(certificate),
                str(key),
                *port,
            ]
            _serve(["nsenter", "-t", str(namespace), "-n", *words], processes)
        processes.append(_serve_ssh(net, directory))
        yield Lab(host, net, arrivals, directory)
    finally:
        for process in reversed(processes):
            if process.stdin is not None:
                process.stdin.close()
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()


def _hold(unshare: list[str], processes: list[subprocess.Popen[str]]) -> int:
    process = _begin([*unshare, sys.executable, "-c", HOLD])
    processes.append(process)
    assert process.stdout is not None
    return int(process.stdout.readline())


def _begin(words: list[str]) -> subprocess.Popen[str]:
    """Start a process that a signal to the test run's group does not reach: fixtures still need the lab to end."""
    return subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )


def _serve(words: list[str], processes: list[subprocess.Popen[str]]) -> None:
    server = _begin(words)
    processes.append(server)
    assert server.stdout is not None
    assert server.stdout.readline() == "ready\n"


def _wire(host: int, net: int) -> None:
    on_host = ["nsenter", "-t", str(host), "-n", "ip"]
    on_net = ["nsenter", "-t", str(net), "-n", "ip"]
    _run([*on_host, "link", "add", "up0", "type", "veth", "peer", "name", "down0", "netns", str(net)])
    for ip in (on_host, on_net):
        _run([*ip, "link", "set", "lo", "up"])
    _run([*on_host, "addr", "add", "198.51.100.2/30", "dev", "up0"])
    _run([*on_host, "-6", "addr", "add", "2001:db8:51::2/64", "dev", "up0", "nodad"])
    _run([*on_host, "link", "set", "up0", "up"])
    _run([*on_net, "addr", "add", "198.51.100.1/30", "dev", "down0"])
    _run([*on_net, "-6", "addr", "add", "2001:db8:51::1/64", "dev", "down0", "nodad"])
    _run([*on_net, "link", "set", "down0", "up"])
    _run([*on_net, "route", "add", "local", "203.0.113.0/24", "dev", "lo"])
    _run([*on_net, "route", "add", "local", "10.0.0.0/8", "dev", "lo"])
    _run([*on_net, "route", "add", "local", "169.254.169.254/32", "dev", "lo"])
    _run([*on_net, "-6", "route", "add", "local", "2001:db8:113::/64", "dev", "lo"])
    _run([*on_host, "route", "add", "default", "via", "198.51.100.1"])
    _run([*on_host, "-6", "route", "add", "default", "via", "2001:db8:51::1"])


def _make_certificate(certificate: Path, key: Path) -> None:
    words = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=example.test",
    ]
    names = "subjectAltName=DNS:example.test,DNS:*.example.test"
    _run([*words, "-keyout", str(key), "-out", str(certificate), "-addext", names])


def _make_repository(bare: Path) -> None:
    """A repository with one commit, ready for git's dumb HTTP transport."""
    work = bare.with_name("work")
    me = ["-c", "user.name=Somebody", "-c", "user.email=somebody@example.test"]
    _run(["git", "init", "-q", "-b", "main", str(work)])
    (work / "README").write_text("hello from the repository\n")
    _run(["git", "-C", str(work), "add", "README"])
    _run(["git", "-C", str(work), *me, "commit", "-q", "-m", "Begin"])
    _run(["git", "clone", "-q", "--bare", str(work), str(bare)])
    _run(["git", "-C", str(bare), "update-server-info"])


def _serve_ssh(net: int, directory: Path) -> subprocess.Popen[str]:
    """A real SSH server at git.example.test, which takes the key `internet_key` next to it."""
    host_key, key = directory / "internet_host_key", directory / "internet_key"
    for file in (host_key, key):
        _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)])
    config = directory / "internet_sshd_config"
    config.write_text(
        "ListenAddress 203.0.113.40:22\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nPidFile none\n"
        f"HostKey {host_key}\nAuthorizedKeysFile {key}.pub\n"
    )
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    words = ["nsenter", "-t", str(net), "-n", "--", "/usr/sbin/sshd", "-D", "-e", "-f", str(config)]
    server = subprocess.Popen(words, stderr=subprocess.DEVNULL, text=True, start_new_session=True)
    # The address and port as proc(5) shows them, in the state of a listener.
    listener = re.compile(r"287100CB:0016 00000000:0000 0A")
    eventually(lambda: listener.search(Path(f"/proc/{net}/net/tcp").read_text()), what="the SSH server")
    return server


def _run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"


def holding(directory: Path, secret: bytes) -> list[str]:
    """The files below a directory that hold something, whatever its processes remove in between."""
    found = []
    for place, _, names in os.walk(directory):
        for path in (Path(place, name) for name in names):
            with suppress(FileNotFoundError):
                if path.is_file() and not path.is_symlink() and secret in path.read_bytes():
                    found.append(str(path.relative_to(directory)))
    return found


LAB_NEEDS = ("root", "networks", "nft", "ssh", "sshd", "openssl", "git")
"""What the lab needs of the machine, as `tests.machine` knows it."""


@dataclass(frozen=True)
class Person:
    """Someone who uses irons on the lab's host: a home directory of their own, and the program."""

    lab: Lab
    home: Path
    program: tuple[str, ...]
    user: str | None = None
    more: Mapping[str, str] | None = None

    @property
    def env(self) -> dict[str, str]:
        """The environment of their commands."""
        return {
            "HOME": str(self.home),
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "TZ": "UTC",
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            **{key: value for key, value in os.environ.items() if key.startswith("COVERAGE_")},
            **(self.more or {}),
        }

    @contextmanager
    def start(self, *words: str, **more: Any) -> Iterator[subprocess.Popen[str]]:
        """Start `irons WORDS…`; it is killed at the end where it still runs."""
        process = subprocess.Popen(
            [*self.lab.enter(user=self.user), *self.program, *words],
            env=self.env,
            cwd=self.home,
            text=True,
            **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more},
        )
        try:
            yield process
        finally:
            process.kill()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream is not None:
                    stream.close()
            process.wait()

    def run(
        self, *words: str, text: str | None = None, timeout: float = COMMAND_WITHIN
    ) -> subprocess.CompletedProcess[str]:
        """Run `irons WORDS…` to its end, which may take `timeout` seconds, and never less than `COMMAND_WITHIN`."""
        return subprocess.run(
            [*self.lab.enter(user=self.user), *self.program, *words],
            env=self.env,
            cwd=self.home,
            text=True,
            errors="replace",
            input=text if text is not None else "",
            capture_output=True,
            timeout=max(timeout, COMMAND_WITHIN),
            check=False,
        )

    def ok(self, *words: str, timeout: float = COMMAND_WITHIN) -> str:
        """Run `irons WORDS…`, expect exit code 0, and return its stdout."""
        done = self.run(*words, timeout=timeout)
        assert done.returncode == 0, (
            f"irons {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout

    def inside(
        self, name: str, script: str, timeout: float = COMMAND_WITHIN
    ) -> subprocess.CompletedProcess[str]:
        """Run a shell script in a sandbox, over SSH."""
        return self.run("exec", name, "--", "sh", "-c", script, timeout=timeout)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The audit events of a sandbox."""
        return [json.loads(line) for line in self.ok("audit", "egress", name, "-o", "jsonl").splitlines()]
