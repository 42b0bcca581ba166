"""Three Incus daemons of the tests' own as one cluster, on one machine: `python -m tests.fleet.cluster ROOT WORK`.

    n1 10.89.0.1: has the network of whoever starts it       n2 10.89.0.2, n3 10.89.0.3: each a network and a host name of its own

They meet at a bridge in a fourth network. Nothing has a name in the file system but the directory `WORK`, and everything ends with
this program, which ends with its standard input or when someone ends it. It prints a line of JSON when the cluster is whole, and
raises the machine's limit of inotify instances for as long: containers that run systemd need many.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.fleet.incus_daemon import Daemon, NoIncusError, serve, serving, within

ADDRESSES: Mapping[str, str] = {f"n{each}": f"10.89.0.{each}" for each in (1, 2, 3)}
"""The members and their addresses; the first shares its network."""
FIRST = "n1"
PORT = 8443

_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
_INOTIFY_NEEDED = 8192
_HOLD = "import ctypes, sys; ctypes.CDLL(None).prctl(1, 9); print('held', flush=True); sys.stdin.read()"
"""A process that only holds its namespaces, and ends with its standard input or when its parent dies."""


class Member(NamedTuple):
    """One of them.

    Attributes:
        socket: where it answers whoever is on its machine.
        address: its address in the cluster.
        network: a process that has its network and host name; 0 for the one that shares them.
    """

    socket: Path
    address: str
    network: int

    @property
    def enter(self) -> list[str]:
        """The words to put before a command so that it runs in the network of this member, under its host name."""
        return ["nsenter", "-t", str(self.network), "-n", "-u", "--"] if self.network else []

    @property
    def url(self) -> str:
        """Where it answers everyone."""
        return f"https://{self.address}:{PORT}"


@contextlib.contextmanager
def incus_cluster(root: Path, work: Path, enter: list[str]) -> Iterator[Mapping[str, Member]]:
    """Run a cluster for as long as this is open, also when the tests are killed; gives its members by name.

    Args:
        root: where `make_root` laid out its files.
        work: a directory that does not exist yet.
        enter: the words to put before a command so that it runs in the network that the first member is to share.

    Raises:
        NoIncusError: it does not start here.
    """
    with serving(enter, "tests.fleet.cluster", root, work) as answer:
        yield {
            name: Member(Path(found["socket"]), ADDRESSES[name], found["network"])
            for name, found in json.loads(answer).items()
        }


@contextlib.contextmanager
def _cluster(root: Path, work: Path) -> Iterator[str]:
    with contextlib.ExitStack() as opened:
        opened.callback(_remove_directory, work)
        opened.enter_context(_more_inotify())
        switch = opened.enter_context(_held())
        _ip(switch, "link add br0 type bridge")
        _ip(switch, "link set br0 up")
        members: dict[str, Daemon] = {}
        networks: dict[str, int] = {}
        for name, address in ADDRESSES.items():
            network = None if name == FIRST else opened.enter_context(_held(name))
            opened.callback(_ip_quietly, switch, f"link delete to-{name}")
            _plug(switch, name, address, network)
            networks[name] = network or 0
            members[name] = Daemon(root, work / name, name=name, network=network)
            opened.callback(members[name].end)
        first = members[FIRST]
        first.answer()
        first.inside("incus", "config", "set", f"core.https_address={ADDRESSES[FIRST]}:{PORT}")
        first.inside("incus", "cluster", "enable", FIRST)
        driver = json.loads(first.inside("incus", "query", "/1.0/storage-pools/default"))["driver"]
        for name, daemon in members.items():
            if name != FIRST:
                token = first.inside("incus", "cluster", "add", "--quiet", name).split()[-1]
                daemon.wait_ready()
                daemon.inside(*("incus", "admin", "init", "--preseed"), text=_joining(name, token, driver))
        found = {
            name: {"socket": str(daemon.socket), "network": networks[name]}
            for name, daemon in members.items()
        }
        yield json.dumps(found)


def _joining(name: str, token: str, driver: str) -> str:
    """What a daemon reads that is to join: JSON is YAML."""
    size = {"entity": "storage-pool", "name": "default", "key": "size", "value": "5GiB"}
    address = f"{ADDRESSES[name]}:{PORT}"
    cluster = {"enabled": True, "server_name": name, "server_address": address, "cluster_token": token}
    return json.dumps({"cluster": {**cluster, "member_config": [size] if driver == "btrfs" else []}})


def _plug(switch: int, name: str, address: str, network: int | None) -> None:
    """Give a network a device `fleet0` that leads to the switch."""
    device = "fleet0"
    _run(
        [
            *within(network),
            "ip",
            "link",
            "add",
            device,
            "type",
            "veth",
            "peer",
            f"to-{name}",
            "netns",
            str(switch),
        ]
    )
    _ip(switch, f"link set to-{name} master br0 up")
    for line in ("link set lo up", f"address add {address}/24 dev {device}", f"link set {device} up"):
        _run([*within(network), "ip", *line.split()])


@contextlib.contextmanager
def _held(name: str = "") -> Iterator[int]:
    """A process with a network of its own, and a host name if given."""
    words = ["unshare", "--net", *(("--uts",) if name else ()), sys.executable, "-I", "-c", _HOLD]
    process = subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert process.stdout is not None
    try:
        process.stdout.readline()
        if name:
            _run(["nsenter", "-t", str(process.pid), "-u", "hostname", name])
        yield process.pid
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def _more_inotify() -> Iterator[None]:
    before = int(_INOTIFY.read_text())
    if before >= _INOTIFY_NEEDED:
        yield
        return
    _INOTIFY.write_text(str(_INOTIFY_NEEDED))
    try:
        yield
    finally:
        _INOTIFY.write_text(str(before))


def _remove_directory(work: Path) -> None:
    with contextlib.suppress(OSError):
        work.rmdir()


def _ip(network: int, line: str) -> None:
    _run([*within(network), "ip", *line.split()])


def _ip_quietly(network: int, line: str) -> None:
    with contextlib.suppress(NoIncusError):
        _ip(network, line)


def _run(words: list[str]) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoIncusError(f"{' '.join(words)}: {done.stderr.strip()}")


if __name__ == "__main__":
    sys.exit(serve(_cluster(*map(Path, sys.argv[1:]))))
