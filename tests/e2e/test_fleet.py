"""Labels, work on several sandboxes, and ends that come by time, with real sandboxes."""

from __future__ import annotations

import json
import pwd
from pathlib import Path
from typing import Any

from irons_local.engines.namespace.activity import sessions
from tests.e2e.lab import Person, eventually


def test_several_sandboxes_by_name_and_label(person: Person) -> None:
    """They are made at the same time, found and stopped by label, and destroyed; what another made stays."""
    person.ok("create", "bystander", timeout=180)
    made = person.ok("create", "web1", "web2", "db", "--label", "fleet=e2e", "-o", "json", timeout=180)
    assert [row["status"] for row in json.loads(made)] == ["ready"] * 3
    again = person.run("create", "web1", "web3", "--label", "fleet=e2e", timeout=180)
    assert again.returncode == 5
    person.ok("create", "web1", "web3", "--if-missing", timeout=180)
    assert person.ok("list", "-q", "--label", "fleet").split() == ["db", "web1", "web2", "web3"]
    own = 0 if person.user is None else pwd.getpwnam(person.user).pw_uid
    inside = Path(f"/proc/{_status(person, 'db')['metadata']['pid']}/net")
    # What looked whether it was ready has ended, which the kernel may notice later.
    eventually(lambda: sessions(inside, own) == 0, what="no session to be there")
    with person.start("exec", "db", "--", "sleep", "300") as session:
        eventually(lambda: sessions(inside, own) == 1, what="the session to be seen from outside")
        session.kill()
    person.ok("stop", "--label", "fleet=e2e", timeout=180)
    states = {row["name"]: row["status"] for row in json.loads(person.ok("list", "-o", "json"))}
    assert {states[name] for name in ("db", "web1", "web2", "web3")} == {"stopped"}
    assert states["bystander"] == "ready"
    person.ok("destroy", "--label", "fleet=e2e", "--force", timeout=180)
    assert person.run("destroy", "--label", "fleet=e2e", "--force").returncode == 3
    person.ok("destroy", "bystander", "nobody", "--force", "--if-exists", timeout=180)


def test_sandboxes_end_by_time_and_idleness(person: Person) -> None:
    """One is destroyed at its deadline, an idle one is stopped, and one with work to do goes on; each says why."""
    person.ok("create", "idle", "busy", "--idle-stop", "6s", "--ttl", "1h", timeout=180)
    person.ok("create", "short", "--ttl", "1s", "--rm", "--async")
    # It may be stopped before it is entered: that is what it asked for.
    eventually(lambda: _put_to_work(person, "busy"), within=180, what="busy to be entered")
    reason = "stopped after it was idle for 6 s"
    eventually(lambda: _status(person, "idle")["metadata"].get("reason") == reason)
    assert _status(person, "busy")["status"] == "ready"
    eventually(lambda: person.run("status", "short").returncode == 3, what="short to be destroyed")
    assert "destroyed at the end of its time to live" in person.run("status", "short").stderr
    assert "destroyed at the end of its time to live" in person.ok("local", "logs")
    assert person.ok("extend", "busy", "2h").startswith("busy stops in 2 h 5")
    person.ok("destroy", "idle", "busy", "--force", timeout=180)


def _put_to_work(person: Person, name: str) -> bool:
    person.run("start", name, timeout=180)
    return person.inside(name, "(while :; do :; done) >/dev/null 2>&1 </dev/null &").returncode == 0


def _status(person: Person, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(person.ok("status", name, "-o", "json"))
    return found
