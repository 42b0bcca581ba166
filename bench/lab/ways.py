"""Ways from a client to the benchmark's servers: direct, through a sandbox, or through a proxy next to it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from bench.lab.stage import ROOT, Stage

NAME = "files.example.test"
ADDRESS = "203.0.113.20"
BULK_PORT, QUICK_PORT = 9001, 9002
NEAR_END, FAR_END = ROOT / "bench/lab/near_end.py", ROOT / "bench/lab/far_end.py"
_WITHIN = 300.0


class Way(NamedTuple):
    """One client and the address under which it reaches the servers.

    Attributes:
        name: printed label.
        process: process in the client's network namespace.
        address: address the client connects to.
    """

    name: str
    process: int
    address: str

    def argv(self, kind: str, port: int, *numbers: int) -> list[str]:
        """Command that runs the client in its namespace."""
        words = [kind, self.address, str(port), NAME, *map(str, numbers)]
        return ["nsenter", "-t", str(self.process), "-n", sys.executable, str(NEAR_END), *words]

    def run(self, kind: str, port: int, *numbers: int) -> dict[str, Any]:
        """Run the client and return its figures.

        Raises:
            SystemExit: the client failed.
        """
        argv = self.argv(kind, port, *numbers)
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=_WITHIN)
        return _figures(self.name, kind, done.returncode, done.stdout, done.stderr)


class Route(NamedTuple):
    """Several clients that reach the servers in the same way.

    Attributes:
        name: printed label.
        ways: one for each client.
    """

    name: str
    ways: tuple[Way, ...]

    def crowd(self, port: int, count: int, at_once: int) -> float:
        """Open connections from all clients at the same time and return the rate of all together, per second.

        Args:
            port: port of the servers.
            count: connections of all clients together.
            at_once: connections under way at once, all clients together.

        Raises:
            SystemExit: a client or a connection failed.
        """
        share, each = count // len(self.ways), at_once // len(self.ways)
        pipe = subprocess.PIPE
        with ExitStack() as held:
            clients = [
                held.enter_context(
                    subprocess.Popen(
                        way.argv("together", port, share, each),
                        stdin=pipe,
                        stdout=pipe,
                        stderr=pipe,
                        text=True,
                    )
                )
                for way in self.ways
            ]
            for client in clients:
                assert client.stdout is not None
                client.stdout.readline()
            for client in clients:
                assert client.stdin is not None
                client.stdin.write("go\n")
                client.stdin.flush()
            told = [
                _figures(self.name, "crowd", client.returncode, *said)
                for client, said in [(client, client.communicate(timeout=_WITHIN)) for client in clients]
            ]
        failed = sum(each["failed"] for each in told)
        if failed:
            raise SystemExit(f"{self.name}: {failed} of {count} connections failed")
        began, ended = min(each["began"] for each in told), max(each["ended"] for each in told)
        return float(sum(each["count"] for each in told) / (ended - began))


def _figures(name: str, kind: str, code: int, said: str, complaint: str) -> dict[str, Any]:
    if code:
        raise SystemExit(f"{name}: {kind}: exit {code}: {complaint.strip()}")
    told: dict[str, Any] = json.loads(said)
    return told


@contextmanager
def far_end(on: Stage, size: int) -> Iterator[None]:
    """Serve in the lab's internet until the context ends.

    Args:
        on: the stage.
        size: bytes of a download.
    """
    words = [str(FAR_END), ADDRESS, str(BULK_PORT), str(size), str(QUICK_PORT)]
    argv = ["nsenter", "-t", str(on.lab.internet), "-n", sys.executable, *words]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        try:
            server.stdout.readline()
            yield
        finally:
            server.stdin.close()


def sandbox(on: Stage, name: str) -> Way:
    """Create a sandbox in mode deny with one rule, which allows the servers' name."""
    on.person.ok("create", name, "--mode", "deny", "--allow", f"{NAME}:*", timeout=120)
    found = on.person.inside(name, f"getent ahostsv4 {NAME}").stdout
    return Way(name, on.init_of(name), found.split()[0])
