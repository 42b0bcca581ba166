"""A machine's network without a machine: a network namespace that is given the outer end of a cell's veth, as an instance is."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

HOLD = (
    "import sys, os, ctypes; ctypes.CDLL(None).prctl(1, 9); print(os.getpid(), flush=True); sys.stdin.read()"
)
"""A process that only holds its namespaces, and ends when its standard input does or its parent dies."""


@dataclass(frozen=True)
class Space:
    """A network namespace, by a process in it."""

    pid: int

    def enter(self, *argv: str) -> list[str]:
        """The words of a command that runs in it."""
        return ["nsenter", "-t", str(self.pid), "--net", "--", *argv]

    def run(self, *argv: str, text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in it to its end."""
        return subprocess.run(
            self.enter(*argv), input=text, capture_output=True, text=True, timeout=300, check=False
        )

    def ok(self, *argv: str) -> str:
        """Run a command in it, which must succeed."""
        done = self.run(*argv)
        assert done.returncode == 0, (argv, done.stdout, done.stderr)
        return done.stdout

    def python(self, program: str, *argv: str) -> str:
        """Run a Python program in it, which must succeed."""
        return self.ok(sys.executable, "-P", "-c", program, *argv).strip()

    def links(self) -> dict[str, dict[str, object]]:
        """Its network interfaces, by name."""
        return {each["ifname"]: each for each in json.loads(self.ok("ip", "-d", "-j", "addr"))}

    def move(self, name: str, to: Space, called: str) -> None:
        """Give an interface of it to another one."""
        self.ok("ip", "link", "set", name, "netns", str(to.pid), "name", called)


@contextmanager
def space() -> Iterator[Space]:
    """A fresh network namespace with its loopback up."""
    words = ["unshare", "--net", sys.executable, "-c", HOLD]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            made = Space(int(process.stdout.readline()))
            made.ok("ip", "link", "set", "lo", "up")
            yield made
        finally:
            process.kill()


def plug_in(machine: Space | None, instance: Space, outer: str) -> None:
    """Do with the outer end of a veth what Incus does at the start of a container, and the container's files after it.

    Args:
        machine: where that end is; None for the caller's network namespace.
        instance: who gets it.
        outer: its name.
    """
    moving = ("ip", "link", "set", outer, "netns", str(instance.pid), "name", "eth0")
    subprocess.run(machine.enter(*moving) if machine else moving, check=True, capture_output=True)
    settings: Sequence[Sequence[str]] = (
        ("addr", "add", "100.64.0.2/30", "dev", "eth0"),
        ("-6", "addr", "add", "fd64::2/64", "dev", "eth0", "nodad"),
        ("link", "set", "eth0", "up"),
        ("route", "add", "default", "via", "100.64.0.1"),
        ("-6", "route", "add", "default", "via", "fd64::1"),
    )
    for words in settings:
        instance.ok("ip", *words)


def unplug(machine: Space, instance: Space, outer: str) -> None:
    """Give it back, down, as Incus does when the container has stopped."""
    instance.ok("ip", "link", "set", "eth0", "down")
    instance.move("eth0", machine, outer)
