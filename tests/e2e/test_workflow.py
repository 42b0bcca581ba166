"""The whole path, from create to destroy, as a person walks it."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

from tests.e2e.lab import Person, eventually
from tests.e2e.test_lasting import named


def test_the_workflow_of_the_readme_holds_line_by_line(person: Person, sandbox: str) -> None:
    """Watch in warn, allow what is needed, lock, and see in the log what was allowed and what was refused."""
    assert person.ok("egress", "mode").strip() == "warn"
    warned = person.inside(sandbox, "curl -sS -m 60 http://web.example.test/first")
    assert warned.returncode == 0, warned.stderr
    assert json.loads(warned.stdout)["host"] == "web.example.test"
    assert [event["verdict"] for event in person.events(sandbox)] == ["warn"]

    person.ok("egress", "allow", "web.example.test", "other.example.test")
    person.ok("egress", "mode", "deny")
    allowed = person.inside(sandbox, "curl -sS -k -m 60 https://web.example.test/second")
    assert json.loads(allowed.stdout)["tls"] is True
    before = len(person.lab.arrivals())
    refused = person.inside(sandbox, "curl -sS -m 60 http://evil.example.test/third")
    assert "evil.example.test" in refused.stdout
    assert "irons egress allow evil.example.test" in refused.stdout

    events = person.events(sandbox)
    assert [(event["host"], event["verdict"]) for event in events] == [
        ("web.example.test", "warn"),
        ("web.example.test", "allowed"),
        ("evil.example.test", "blocked"),
    ]
    assert person.lab.arrivals()[before:] == []


def test_the_ssh_command_runs_as_it_is_printed(person: Person, sandbox: str) -> None:
    """`$(irons ssh --command NAME)` is fit for a shell, and its host key is checked."""
    command = person.ok("ssh", sandbox, "--command")
    done = subprocess.run(
        [*person.lab.enter(user=person.user), "sh", "-c", command.strip() + " 'id -un; sudo id -u'"],
        env=person.env,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=180,
        check=False,
    )
    assert done.stdout.splitlines() == ["irons", "0"], done.stderr
    assert shlex.split(command)[0] == "ssh"


def test_follow_in_a_second_process_shows_what_happens(person: Person, sandbox: str) -> None:
    """`audit egress --follow` prints the line of an attempt as it comes, in the wire contract's form."""
    with person.start("audit", "egress", sandbox, "--follow") as following:
        assert following.stdout is not None
        person.inside(sandbox, "curl -s -m 60 http://web.example.test/")
        line = following.stdout.readline()
        following.terminate()
        following.communicate(timeout=180)
    assert line.split("  ")[1:] == ["ALLOWED", "web.example.test", "(mode: warn)", "(would-deny)\n"]


def test_stop_and_start_keep_the_files(person: Person, sandbox: str) -> None:
    """What was written in a sandbox is there after stop and start, with the same host key and port."""
    before = json.loads(person.ok("status", sandbox, "-o", "json"))
    person.inside(sandbox, "echo kept > /home/irons/note")
    person.ok("stop", sandbox)
    assert json.loads(person.ok("status", sandbox, "-o", "json"))["status"] == "stopped"
    person.ok("start", sandbox)
    assert person.inside(sandbox, "cat /home/irons/note").stdout == "kept\n"
    after = json.loads(person.ok("status", sandbox, "-o", "json"))
    assert after["metadata"]["ssh_port"] == before["metadata"]["ssh_port"]


def test_a_key_of_ones_own_opens_it(person: Person) -> None:
    """A sandbox created with a key is entered by that key without a word more, and by no other."""
    key = person.home / ".ssh" / "work"
    make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)]
    subprocess.run([*person.lab.enter(user=person.user), *make], env=person.env, check=True)
    person.ok("create", "keyed", "--key", f"{key}.pub", timeout=180)
    try:
        assert person.inside("keyed", "id -un").stdout == "irons\n"
        there = person.inside("keyed", "grep -o 'AAAA[^ ]*' /run/irons/authorized_keys").stdout.split()
        assert there == [Path(f"{key}.pub").read_text().split()[1]]
    finally:
        person.ok("destroy", "keyed", "--force", timeout=180)


def test_destroy_leaves_nothing(person: Person) -> None:
    """After `destroy --force` no process, namespace, mount, port, directory and name of the sandbox is there."""
    person.ok("create", "gone", timeout=180)
    status = json.loads(person.ok("status", "gone", "-o", "json"))
    identity, port = status["id"], str(status["metadata"]["ssh_port"])
    spaces = set(
        person.inside(
            "gone", "readlink /proc/self/ns/net /proc/self/ns/mnt /proc/self/ns/user"
        ).stdout.split()
    )
    assert len(spaces) == 3
    with ExitStack() as opened:
        for name in spaces:
            # As long as it is open here, no namespace that another test makes is given its number.
            opened.callback(os.close, os.open(held({name})[0], os.O_RDONLY))
        assert port in listening(person)
        # What left its session, and its namespaces, goes with it.
        nested = "unshare -Urmpf sh -c 'mount -t tmpfs t /mnt; sleep 4321' </dev/null >/dev/null 2>&1 &"
        person.inside(
            "gone", f"setsid sh -c '{nested}' & sudo setsid -f sleep 4321 >/dev/null 2>&1 </dev/null"
        )
        person.ok("destroy", "gone", "--force", timeout=180)
        assert person.run("status", "gone").returncode == 3
        eventually(lambda: not named(person, identity), what="the sandbox's files to be gone")
        eventually(lambda: not held(spaces), what="its namespaces to be gone")
    assert port not in listening(person)
    eventually(lambda: identity not in arguments(), what="the last process with its name to be gone")


def arguments() -> str:
    """What all processes were started with."""
    return subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout


def listening(person: Person) -> set[str]:
    """The TCP ports on which something listens on the lab's host."""
    words = [*person.lab.enter(), "cat", "/proc/net/tcp"]
    rows = subprocess.run(words, capture_output=True, text=True, check=True).stdout.splitlines()[1:]
    return {str(int(row.split()[1].split(":")[1], 16)) for row in rows if row.split()[3] == "0A"}


def held(spaces: set[str]) -> list[str]:
    """By what processes besides this one live in these namespaces, or hold one of them open."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        if process.name == str(os.getpid()):
            continue
        with suppress(OSError):
            links = [*(process / "ns").iterdir(), *(process / "fd").iterdir()]
            found += [str(link) for link in links if _read(link) in spaces]
    return found


def _read(link: Path) -> str:
    try:
        return str(link.readlink())
    except OSError:
        return ""
