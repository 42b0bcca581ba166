"""What must outlast the daemon, a crash of all of it, and a reboot; and what an interruption must not leave behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from tests.e2e.lab import Person, eventually
from tests.e2e.test_kills import api_answers, pids
from tests.local.people import removed


def look(person: Person, name: str) -> dict[str, str]:
    """Id, port and host key of a sandbox, and the address that a name has in it."""
    status = json.loads(person.ok("status", name, "-o", "json"))
    key = person.inside(name, "cut -d' ' -f1-2 /run/irons/ssh_host_ed25519_key.pub").stdout
    address = person.inside(name, "getent hosts web.example.test").stdout
    assert address.startswith("198.18.")
    return {"id": status["id"], "port": status["metadata"]["ssh_port"], "key": key, "address": address}


def end(person: Person, *, sandboxes: bool = False) -> None:
    """Kill all that runs of the daemon at once; with `sandboxes` also every sandbox, as a power cut would."""
    found = pids(person)
    # The keeper first: it starts again what ends while it lives.
    victims = [found.pop("keeper"), *found.values()]
    if sandboxes:
        for row in json.loads(person.ok("list", "-o", "json")):
            pid = json.loads(person.ok("status", row["name"], "-o", "json"))["metadata"].get("pid")
            victims += [int(pid)] if pid else []
    for victim in victims:
        with suppress(ProcessLookupError):
            os.kill(victim, signal.SIGKILL)
    eventually(
        lambda: not any(Path(f"/proc/{victim}").exists() for victim in victims), what="the killed to be gone"
    )


def test_a_restart_of_the_daemon_keeps_everything(person: Person, sandbox: str) -> None:
    """After `local down` and the next command the sandbox still runs, with its files, rules, port and host key."""
    person.ok("egress", "allow", "--sandbox", sandbox, "web.example.test")
    person.inside(sandbox, "echo kept > note")
    before = look(person, sandbox)
    boot = person.inside(sandbox, "cat /proc/1/stat | cut -d' ' -f22").stdout
    down = person.run("local", "down")
    assert down.returncode == 0
    assert "One that is open elsewhere and waits or follows does so within seconds: irons ask" in down.stderr
    assert look(person, sandbox) == before
    assert person.inside(sandbox, "cat note").stdout == "kept\n"
    assert person.inside(sandbox, "cat /proc/1/stat | cut -d' ' -f22").stdout == boot
    assert "web.example.test" in person.ok("egress", "list", "--sandbox", sandbox)
    assert person.inside(sandbox, "curl -sS -m 60 http://web.example.test/").returncode == 0


def test_after_a_crash_of_all_three_the_next_command_brings_all_back(person: Person, sandbox: str) -> None:
    """Keeper, control plane and gateway killed at once: the sandbox lives on, closed, until the next command."""
    before = look(person, sandbox)
    end(person)
    assert look(person, sandbox) == before
    eventually(
        lambda: person.inside(sandbox, "curl -sS -m 60 http://web.example.test/").returncode == 0,
        what="a way out again",
    )


def test_a_command_that_waits_brings_the_daemon_back(person: Person, sandbox: str) -> None:
    """What waits for a sandbox outlives the daemon it began with: with all three killed, its next look starts them again."""
    with person.start("wait", sandbox, "--for", "stopped", "--wait-timeout", "120") as waiting:
        eventually(lambda: connected(waiting.pid), what="it to wait")
        end(person)
        eventually(lambda: api_answers(person), what="the daemon to be back")
        person.ok("stop", sandbox)
        assert waiting.wait(timeout=180) == 0


def connected(pid: int) -> bool:
    """Whether a process holds a socket."""
    with suppress(OSError):
        return any(fd.readlink().name.startswith("socket:") for fd in Path(f"/proc/{pid}/fd").iterdir())
    return False


def test_after_a_reboot_a_sandbox_is_stopped_and_starts_with_its_files(person: Person, sandbox: str) -> None:
    """A reboot is simulated: all processes end at once and the runtime directory is gone."""
    person.inside(sandbox, "echo kept > note; sync")
    before = look(person, sandbox)
    end(person, sandboxes=True)
    eventually(lambda: removed(person.home / "run" / "irons"), what="the directory to go")
    assert json.loads(person.ok("status", sandbox, "-o", "json"))["status"] in ("stopped", "error")
    person.ok("start", sandbox)
    assert look(person, sandbox) == before
    assert person.inside(sandbox, "cat note").stdout == "kept\n"


def test_a_create_that_dies_is_an_error_with_its_reason_and_can_be_destroyed(person: Person) -> None:
    """The control plane killed in the middle of a create leaves no sandbox stuck in `creating`, and nothing behind."""
    with person.start("create", "halfway", "--async") as creating:
        creating.wait(timeout=180)
    made = identity(person, "halfway")
    os.kill(pids(person)["server"], signal.SIGKILL)

    def settled() -> str:
        done = person.run("status", "halfway", "-o", "json")
        return str(json.loads(done.stdout)["status"]) if done.returncode == 0 else ""

    state = eventually(lambda: (now := settled()) not in ("", "creating") and now, what="a state")
    assert state in ("error", "ready", "stopped")
    person.ok("destroy", "halfway", "--force")
    assert_no_trace(person, made)


def test_a_destroy_that_dies_is_finished_by_the_next(person: Person) -> None:
    """The control plane killed while it removes a sandbox: destroying again leaves nothing."""
    person.ok("create", "leaving")
    person.inside("leaving", "mkdir -p deep; for i in $(seq 2000); do echo x > deep/$i; done")
    made = identity(person, "leaving")
    person.ok("stop", "leaving")
    with person.start("destroy", "leaving", "--force") as leaving:
        eventually(
            lambda: (
                list(person.home.glob(".local/state/irons/local/sandboxes/.gone*"))
                or leaving.poll() is not None
            )
        )
        os.kill(pids(person)["server"], signal.SIGKILL)
        leaving.wait(timeout=180)
    again = person.run("destroy", "leaving", "--force")
    assert again.returncode in (0, 3), again.stderr
    assert_no_trace(person, made)


def identity(person: Person, name: str) -> str:
    """A sandbox's id."""
    return str(json.loads(person.ok("status", name, "-o", "json"))["id"])


def named(person: Person, part: str) -> list[str]:
    """The files below a person's home that have this in their names, whatever is removed in between."""
    found = [
        os.path.join(directory, name)  # noqa: PTH118 - a path of text is shown
        for directory, directories, files in os.walk(person.home)
        for name in (*directories, *files)
    ]
    return [path for path in found if part in path.rpartition("/")[2]]


def assert_no_trace(person: Person, gone: str) -> None:
    """No process, mount, cgroup or file is left of the sandbox of that id."""

    def strays() -> list[str]:
        files = named(person, gone)
        mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if gone in line]
        groups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/irons*/*{gone}*")]
        shown = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        return files + mounts + groups + [line for line in shown.splitlines() if gone in line]

    with suppress(AssertionError):
        eventually(lambda: not strays(), what="every trace to be gone")
    assert strays() == []
