"""The ways out of a locked sandbox, tried by the root of a virtual machine.

One boot, one session: what arrives at the stand-in internet is judged as a whole, since a guest has a clock of its own.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from irons_local.gateway.http2 import frames as h2
from tests import vm_left_out
from tests.e2e.attempts import ATTEMPTS, BENEATH, TALK, WEB, WEB_ADDRESS, Attempt, allow, at_once, is_allowed
from tests.e2e.conftest import clear_policy
from tests.e2e.lab import Lab, Person, eventually
from tests.e2e.machines import WITHIN, end_all, inside, only_in_test_vm, run_inside
from tests.machine import Machine

GREETING = (h2.PREFACE + h2.settings({h2.ENABLE_PUSH: 0})).decode("latin-1")
"""What the gateway itself says to an allowed HTTP/2 server, where a slow guest has not made its first request yet."""


def leaks(person: Person, attempts: dict[str, Attempt], over: str) -> set[str]:
    """Make the attempts in one session; gives which of them succeeded inside."""
    done = run_inside(person, "locked", "sh", "-s", text=at_once(attempts, over), within=1500)
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
        assert inside(person, "locked", TALK).returncode == 0
        before = len(lab.arrivals())
        over = ("/over-in-deny", "/over-in-warn")
        succeeded = leaks(person, made, over[0])
        person.ok("egress", "mode", "warn", "--sandbox", "locked")
        succeeded |= leaks(person, BENEATH, over[1])
        person.ok("egress", "mode", "deny", "--sandbox", "locked")
        last = {f"GET {each} HTTP/1.1" for each in over}
        arrived = [seen for seen in lab.arrivals()[before:] if seen.get("line") not in last]
        greeted = {"kind": "tcp", "port": 8080, "server": WEB_ADDRESS, "first": GREETING}
        stray = [seen for seen in arrived if not is_allowed(seen) and {**seen, **greeted} != seen]

        refused = [event for event in person.events("locked") if event["verdict"] == "blocked"]
        unlogged: set[str] = set()
        for mode, attempts in (("deny", made), ("warn", BENEATH)):
            hosts = {event["host"] for event in refused if event["mode"] == mode}
            unlogged |= {attempt.host for attempt in attempts.values() if attempt.host} - hosts

        assert stray == []
        assert succeeded <= vm_left_out.SUCCEEDS_INSIDE.keys()
        assert unlogged <= vm_left_out.NOT_LOGGED.keys()
        assert all(event["reason"] for event in refused)
    finally:
        end_all(person)
