"""The ways out of a locked sandbox, tried by the root of a virtual machine.

One boot, one session: what arrives at the stand-in internet is judged as a whole, since a guest has a clock of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import vm_left_out
from tests.e2e.attempts import ATTEMPTS, BENEATH, TALK, WEB, Attempt, allow, is_allowed
from tests.e2e.conftest import clear_policy
from tests.e2e.lab import Lab, Person, eventually
from tests.e2e.machines import WITHIN, end_all, only_in_test_vm
from tests.machine import Machine

PLACES = ("10.0.2.2", "10.0.2.3", "10.0.2.4", "100.64.0.1")
"""What the user-mode network has besides the guest, of which 10.0.2.2 is the cell's loopback, and the gateway's address."""

SCAN = """
import select, socket, sys
for place in %r:
    answered = []
    for first in range(1, 4097, 64):
        waiting = {}
        for port in range(first, first + 64):
            made = socket.socket()
            made.setblocking(False)
            made.connect_ex((place, port))
            waiting[made.fileno()] = (made, port)
        poll = select.poll()
        for number in waiting:
            poll.register(number, select.POLLOUT)
        while waiting:
            ready = poll.poll(5000)
            if not ready:
                break
            for number, _ in ready:
                made, port = waiting.pop(number)
                poll.unregister(number)
                if made.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    answered.append(port)
                made.close()
        for made, _ in waiting.values():
            made.close()
    print(place, *answered, flush=True)
"""

AT_ONCE = 4
"""Attempts at a time: most of them wait for an answer that must not come."""


def script(attempts: dict[str, Attempt], over: str) -> str:
    """A shell script that makes the attempts, and says which of them succeeded inside."""
    lines = []
    for number, attempt in enumerate(attempts.values()):
        lines.append(
            f"{{ ({attempt.script}) >/tmp/said-{number} 2>&1 </dev/null;"
            f" grep -q LEAK /tmp/said-{number} && echo 'leak {number}'; }} &"
        )
        if number % AT_ONCE == AT_ONCE - 1:
            lines.append("wait")
    return "\n".join([*lines, "wait", f"curl -s -o /dev/null -m 60 http://{WEB}{over}", "echo over", ""])


def leaks(person: Person, attempts: dict[str, Attempt], over: str) -> set[str]:
    """Make the attempts in one session; gives which of them succeeded inside."""
    done = person.run("exec", "locked", "--", "sh", "-s", text=script(attempts, over), timeout=1500)
    *told, last = done.stdout.splitlines() or [""]
    assert last == "over", done
    eventually(lambda: person.lab.arrived(kind="http", line=f"GET {over} HTTP/1.1"), what="the last request")
    names = list(attempts)
    return {names[int(line.split()[1])] for line in told}


@pytest.mark.vm
@only_in_test_vm
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("person", ["user"], indirect=True)
def test_nothing_gets_out_of_a_virtual_machine(
    person: Person, lab: Lab, machine: Machine, vm_image: Path
) -> None:
    """Nothing but what is allowed arrives, whatever a guest's root tries; what is refused is in the log."""
    machine.require("qemu-system-x86_64", "mke2fs")
    clear_policy(person)
    person.ok("local", "image", "import", str(vm_image), "--as", "debian-vm", timeout=300)
    words = ("--engine", "vm", "--memory", "512M", "--mode", "deny", "--allow", WEB)
    made = {name: each for name, each in {**ATTEMPTS, **BENEATH}.items() if name not in vm_left_out.ATTEMPTS}
    try:
        person.ok("create", "locked", *words, "--wait-timeout", f"{WITHIN}s", timeout=WITHIN)
        allow(person, "locked")
        assert person.inside("locked", TALK, timeout=WITHIN).returncode == 0
        before = len(lab.arrivals())
        over = ("/over-in-deny", "/over-in-warn")
        assert leaks(person, made, over[0]) <= vm_left_out.SUCCEEDS_INSIDE.keys()
        person.ok("egress", "mode", "warn", "--sandbox", "locked")
        assert leaks(person, BENEATH, over[1]) == set()
        person.ok("egress", "mode", "deny", "--sandbox", "locked")
        last = {f"GET {each} HTTP/1.1" for each in over}
        arrived = [seen for seen in lab.arrivals()[before:] if seen.get("line") not in last]
        assert [seen for seen in arrived if not is_allowed(seen)] == []

        refused = [event for event in person.events("locked") if event["verdict"] == "blocked"]
        for mode, attempts in (("deny", made), ("warn", BENEATH)):
            hosts = {event["host"] for event in refused if event["mode"] == mode}
            wanted = {attempt.host for attempt in attempts.values() if attempt.host}
            assert wanted - hosts <= vm_left_out.NOT_LOGGED.keys()
        assert all(event["reason"] for event in refused)

        scan = person.run("exec", "locked", "--", "python3", "-", text=SCAN % (PLACES,), timeout=1500)
        assert scan.stdout.splitlines() == ["10.0.2.2 22", "10.0.2.3", "10.0.2.4", "100.64.0.1"], scan
    finally:
        end_all(person)
