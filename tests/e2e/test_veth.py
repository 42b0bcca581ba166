"""The ways out of a machine that has a network of its own, on the outer end of its cell's veth: keeper, gateway and log are the real ones.

The machine's root is root of this host, in a network namespace of its own: it can do with its interface whatever it likes.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import idna
import pytest

from irons_local.cell.layout import INNER
from tests.e2e import frames
from tests.e2e.attempts import ATTEMPTS, BENEATH, LITERAL, TALK, WEB, WEB_ADDRESS, allow, at_once, is_allowed
from tests.e2e.lab import Lab, Person, eventually
from tests.local.plugged import Space
from tests.local.veth_engine import noted, running

ROOT = Path(__file__).parents[2]
PLUGIN = """
from functools import partial
from irons import hookimpl

@hookimpl
def irons_engines():
    from tests.local.veth_engine import VethEngine

    return {"veth": partial(VethEngine, IMAGE)}
"""
OWN = {"another route": "its routes are its own", "another link": "the same", "another address": "the same"}
"""Attempts that would end the session, and prove nothing."""
SUCCEED_INSIDE = {
    "raw sockets",
    "packet sockets",
    "vsock",
    "the packet filter",
    "the first process's namespaces",
    "a network namespace in another",
    "the backend's sockets",
}
"""What a machine's root may do in namespaces of its own; that nothing arrives holds for them too."""
WATCH = f"""
import socket, struct, sys
seen = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
seen.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
print("ready", flush=True)
sys.stdin.readline()
seen.setblocking(False)
all = marked = 0
while True:
    try:
        frame = seen.recv(1 << 16)
    except BlockingIOError:
        break
    all, marked = all + 1, marked + ({frames.MARK.encode()!r} in frame)
print(all, marked, struct.unpack("II", seen.getsockopt(263, 6, 8))[1], flush=True)
"""
"""Takes every frame of a network namespace, and says how many there were, how many of them were crafted, and how many it missed."""


class Watcher:
    """What arrives in a network namespace."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert self._said() == "ready"

    def _said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def counted(self) -> tuple[int, int, int]:
        """How many frames there were, how many of them were crafted, and how many were missed."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        counted, marked, missed = map(int, self._said().split())
        return counted, marked, missed


@contextmanager
def watching(pid: int) -> Iterator[Watcher]:
    """Watch the network namespace of a process."""
    words = Space(pid).enter(sys.executable, "-c", WATCH)
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Watcher(process)
        finally:
            process.kill()


@pytest.fixture
def owner(make_person: Callable[..., Person], lab: Lab, image_tar: Path) -> Iterator[Person]:
    """Root, whose backend has the engine, on a host that forwards."""
    made = make_person(image=False)
    person = replace(made, more={"PYTHONPATH": f"{installed(made.home / 'site', image_tar)}:{ROOT}"})
    forwarding = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")
    host = Space(lab.host)
    try:
        for each in forwarding:
            host.ok("sysctl", "-w", f"{each}=1")
        yield person
    finally:
        for each in forwarding:
            host.ok("sysctl", "-w", f"{each}=0")
        person.run("local", "uninstall", "--purge", "--yes")
        assert "irs-" not in host.ok("ip", "-o", "link")
        assert "irons_veths" not in host.ok("nft", "list", "tables")


def installed(site: Path, image: Path) -> Path:
    """Lay out a directory of packages with the engine's plugin in it."""
    known = site / "irons_veth_for_tests-1.dist-info"
    known.mkdir(parents=True)
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: irons-veth-for-tests\nVersion: 1\n")
    (known / "entry_points.txt").write_text("[irons]\nveth = irons_veth_for_tests\n")
    (site / "irons_veth_for_tests.py").write_text(PLUGIN.replace("IMAGE", repr(str(image))))
    # The daemon looks at PYTHONPATH where something that irons itself needs is found by it alone.
    (site / "idna").symlink_to(Path(idna.__file__).parent)
    return site


def hardware(space: Space, name: str) -> str:
    """The address of a network card."""
    return str(space.links()[name]["address"])


def test_nothing_gets_out_of_a_machine_with_a_network_of_its_own(owner: Person, lab: Lab) -> None:
    """Only what is allowed arrives, whatever its root sends; what is refused is in the log, and its daemon's death changes nothing."""
    for name in ("locked", "neighbour"):
        owner.ok("create", name, "--engine", "veth", "--mode", "deny", "--allow", WEB)
    allow(owner, "locked")
    assert owner.inside("locked", TALK).returncode == 0
    attempts = {name: each for name, each in {**ATTEMPTS, **BENEATH}.items() if name not in OWN}
    before = len(lab.arrivals())

    done = owner.run("exec", "locked", "--", "sh", "-s", text=at_once(attempts, "/over", 12))
    *told, last = done.stdout.splitlines() or [""]
    assert last == "over", done
    eventually(lambda: lab.arrived(kind="http", line="GET /over HTTP/1.1"), what="the last request")
    succeeded = {list(attempts)[int(line.split()[1])] for line in told}
    assert succeeded <= SUCCEED_INSIDE
    arrived = [seen for seen in lab.arrivals()[before:] if seen.get("line") != "GET /over HTTP/1.1"]
    assert [seen for seen in arrived if not is_allowed(seen)] == []
    refused = [event for event in owner.events("locked") if event["verdict"] == "blocked"]
    hosts = {event["host"] for event in refused}
    assert {each.host for each in attempts.values() if each.host} - hosts == set()
    assert all(event["reason"] for event in refused)

    check_frames(owner, lab)
    check_deaths(owner, lab)


def check_frames(owner: Person, lab: Lab) -> None:
    """None of the crafted frames arrives at the host, at the internet, in another cell or at another machine."""
    sandboxes = next(owner.home.rglob("sandboxes"))
    ids = {each: json.loads(owner.ok("status", each, "-o", "json"))["id"] for each in ("locked", "neighbour")}
    cells = {each: noted(sandboxes / identity) for each, identity in ids.items()}
    own, other = cells["locked"], cells["neighbour"]
    assert own is not None
    assert other is not None
    machines = {hardware(each, "eth0"): each for each in running(sandboxes)}
    inner = Space(own.pid)
    locked = next(each for each in machines.values() if each.pid == process_of(sandboxes / ids["locked"]))
    neighbour = next(each for each in machines.values() if each is not locked)
    macs = [
        hardware(inner, INNER),
        hardware(Space(other.pid), INNER),
        hardware(neighbour, "eth0"),
        hardware(Space(lab.host), "up0"),
    ]
    mine = hardware(locked, "eth0")
    text = frames.program("100.64.0.2", "100.64.0.1", *macs, own6="fd64::2", mine=mine)
    places = {"host": lab.host, "internet": lab.internet, "cell": other.pid, "machine": neighbour.pid}
    with ExitStack() as stack:
        watchers = {name: stack.enter_context(watching(pid)) for name, pid in places.items()}
        # That they watch is shown by its own cell, where the frames do arrive.
        proof = stack.enter_context(watching(own.pid))
        assert locked.run(sys.executable, "-c", text).stdout.splitlines()[-1].startswith("sent 25")
        # One frame after the other is taken: what passes of them is there when the answer to this request is.
        asked = owner.inside("locked", f"curl -sS -m 100 http://{WEB}/after")
        assert '"line": "GET /after HTTP/1.1"' in asked.stdout, asked
        assert proof.counted()[1] > 50
        counted = {name: each.counted() for name, each in watchers.items()}
    assert {name: each[1:] for name, each in counted.items()} == dict.fromkeys(places, (0, 0))
    assert counted["internet"][0] > 0
    assert not [each for each in lab.arrivals() if frames.MARK in json.dumps(each)]
    found = {(each["host"], each["port"], each["protocol"]) for each in owner.events("locked")}
    assert {(LITERAL, 9999, "udp"), ("2001:db8:113::66", 9999, "udp"), ("224.0.0.251", 5353, "udp")} <= found
    assert LITERAL in {host for host, _, protocol in found if protocol == "icmp"}


def process_of(home: Path) -> int:
    """The first process of a machine."""
    pid: int = json.loads((home / "process").read_text())[0]
    return pid


def check_deaths(owner: Person, lab: Lab) -> None:
    """With all that runs of the daemon ended nothing is answered; the next command finds the machine, as judged as before."""
    sandboxes = next(owner.home.rglob("sandboxes"))
    identity = json.loads(owner.ok("status", "locked", "-o", "json"))["id"]
    machine = Space(process_of(sandboxes / identity))
    owner.ok("local", "down")
    before = len(lab.arrivals())
    script = "import socket\ntry:\n socket.create_connection(('203.0.113.10', 80), 100)\nexcept OSError as error: print(error.errno)"
    assert machine.python(script) == "111"
    assert lab.arrivals()[before:] == []
    asked = owner.inside("locked", f"curl -sS -m 100 http://{WEB}/again")
    assert f'"server": "{WEB_ADDRESS}"' in asked.stdout, asked
    code = owner.inside(
        "locked", "curl -s -m 100 -o /dev/null -w '%{http_code}' http://evil.example.test/"
    ).stdout
    assert code == "403"
