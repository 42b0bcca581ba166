"""A virtual machine by the whole daemon: judged and logged like any sandbox, confined, copied while it runs, and gone at the end.

`make test-vm` runs all as root and as an ordinary user; a run of everything the first test alone, as an ordinary user, whose way is the
longer one.
"""

from __future__ import annotations

import base64
import json
import os
import signal
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from irons_local.bundle import sshd
from irons_local.bundle.machine import VIRTUAL_DISK
from tests.e2e import frames
from tests.e2e.conftest import clear_policy
from tests.e2e.lab import Lab, Person, eventually
from tests.e2e.machines import ALL, WITHIN, end_all, inside, only_in_test_vm, run_inside, status
from tests.e2e.sampling import argument_lists
from tests.e2e.test_lasting import end
from tests.hostile_disks import BOOT_BLOCK, outside, over
from tests.machine import Machine

ROOT = pytest.param("root", marks=pytest.mark.skipif(not ALL, reason="only make test-vm runs it as root"))

WORDS = ("--engine", "vm", "--cpus", "1", "--memory", "512M", "--mode", "deny", "--allow", "web.example.test")
"""Of the `create` of a machine."""

ASKING = """
allowed() {
  tries=0
  until curl -sS -m 60 "$1"; do
    [ $((tries += 1)) -lt 30 ] || break
  done
}
refused() {
  tries=0
  while said=$(curl -sS -m 60 -o /dev/null -w '%{http_code}' "$1"); [ "$said" = 000 ]; do
    [ $((tries += 1)) -lt 30 ] || break
  done
  echo "$said"
}
"""
"""Defines `allowed URL`, which prints what is answered, and `refused URL`, which prints the status of a refusal.

The gateway resets a connection that has said nothing in its time, as a guest may that is emulated on a busy machine: they try again then.
"""

# What a guest's root can do to its network card that a process in a namespace sandbox cannot.
FRAMES = frames.program("10.0.2.15", "10.0.2.2", "52:55:0a:00:02:02")


def check_confinement(pid: int) -> None:
    """QEMU has a subordinate id, no capability, no new privileges, a filter, and a root with the machine's files alone."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    about = dict(line.split(":", 1) for line in lines)
    assert all(int(uid) >= 100_000 for uid in about["Uid"].split())
    assert int(about["CapEff"], 16) == int(about["CapBnd"], 16) == 0
    assert (about["NoNewPrivs"].strip(), about["Seccomp"].strip()) == ("1", "2")
    root = Path(f"/proc/{pid}/root")
    assert {path.name for path in root.iterdir()} <= {
        *("bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "proc", "run", "sbin", "tmp", "usr", "vm")
    }
    assert sorted(path.name for path in (root / "vm").iterdir()) == [
        "base",
        "disk",
        "initrd",
        "kernel",
        "kit",
        "settings",
    ]
    assert [path.name for path in (root / "etc").iterdir()] == ["resolv.conf"]
    words = Path(f"/proc/{pid}/cmdline").read_bytes()
    assert b"s3cret" not in words
    assert b"PRIVATE KEY" not in words


def check_limits(person: Person) -> None:
    """The guest has the processors, the memory and the disk that it was given, and gets no more of any."""
    script = r"""
    nproc; awk '/^MemTotal/ {print $2}' /proc/meminfo
    tries=0
    until [ "$(df --output=size -BM / | tail -1 | tr -dc 0-9)" -gt 2500 ]; do
      [ $((tries += 1)) -lt 600 ] || break
      sleep 1
    done
    df --output=size -BM / | tail -1 | tr -dc 0-9; echo
    fallocate -l 3G more 2>&1 | grep -o 'No space left'; rm -f more
    python3 -c 'print(len(bytearray(b"x") * (800 << 20)))' >/dev/null 2>&1 || echo refused
    """
    done = inside(person, "machine", script)
    assert done.stdout, done
    processors, memory, disk, *rest = done.stdout.splitlines()
    assert processors == "1", done
    assert 400 << 10 < int(memory) <= 512 << 10, done
    assert 2500 < int(disk) <= 3072, done
    assert rest == ["No space left", "refused"], done


SECRET = "a secret of the host"


def write_disk(person: Person, disk: bytes) -> None:
    """Have the guest's root write a disk that names a file of the host over its own, before the file system on it."""
    text = base64.b64encode(disk).decode()
    script = f"echo {text} | base64 -d | sudo dd of=/dev/vda bs={BOOT_BLOCK} count=1 conv=notrunc,fsync"
    done = inside(person, "machine", script)
    assert done.returncode == 0, done


def check_disk(person: Person, name: str, secret: Path) -> None:
    """What it wrote there is data: it reads that again, and its QEMU has not opened what it names."""
    script = "echo 3 | sudo tee /proc/sys/vm/drop_caches >/dev/null; sudo head -c 64K /dev/vda"
    done = inside(person, name, script)
    assert (done.stdout[:3], str(secret) in done.stdout) == ("QFI", True), done
    assert SECRET not in done.stdout
    for path in Path(f"/proc/{status(person, name)['pid']}/fd").iterdir():
        # Others come and go while this one is looked at.
        with suppress(FileNotFoundError):
            assert path.readlink() != secret


def check_copy(person: Person, made_key: str, secret: Path) -> None:
    """A copy of a machine that runs has its files, is another machine, and is judged by the same rules; what follows is its own."""
    write = "head -c 8M /dev/urandom >large; sync; sha256sum large"
    written = inside(person, "machine", write).stdout
    assert "paused for" in person.ok("snapshot", "create", "machine", "--as", "then", timeout=WITHIN)
    assert inside(person, "machine", "echo later >> kept; sync").returncode == 0
    words = ("create", "copy", "--from", "then", "--wait-timeout", f"{WITHIN}s")
    person.ok(*words, timeout=WITHIN)
    check_disk(person, "copy", secret)
    script = f"{ASKING}cat kept /etc/hostname /etc/machine-id; refused http://evil.example.test/"
    done = inside(person, "copy", script)
    kept, name, own, code = done.stdout.splitlines()
    assert (kept, name, code) == ("kept", "copy", "403"), done
    assert own != made_key.strip()
    assert len(own) == 32
    assert eventually(lambda: [each for each in person.events("copy") if each["host"] == "evil.example.test"])
    person.ok("destroy", "copy", "--force", timeout=180)
    # Not from the guest's memory: what is below its disk now was that disk when it was started.
    drop = "sync; echo 3 | sudo tee /proc/sys/vm/drop_caches >/dev/null; sha256sum large"
    assert inside(person, "machine", drop).stdout == written
    assert inside(person, "machine", "cat kept").stdout == "kept\nlater\n"


def create_unseen(person: Person) -> None:
    """Create the machine; from before that until it is ready no argument list has its host key or the value of a variable."""
    value = SECRET.replace(" ", "-")
    owner = replace(person, more={**(person.more or {}), "API_KEY": value})
    words = ("create", "machine", *WORDS, "--env", "API_KEY", "--disk", "3G")
    with argument_lists() as lists:
        owner.ok(*words, "--wait-timeout", f"{WITHIN}s", timeout=WITHIN)
    assert inside(person, "machine", "echo $API_KEY").stdout == f"{value}\n"
    (key,) = person.home.rglob(f"sandboxes/*/settings/{sshd.HOST_KEY}")
    secrets = [value, *key.read_text().splitlines()[1:-1]]
    assert len(secrets) > 2
    assert any(b"qemu-system" in line for line in lists)
    assert not [line for line in lists for secret in secrets if secret.encode() in line]


def check_reboot(person: Person) -> None:
    """After a reboot from inside it is the same machine, in the same QEMU, with its files and its host key."""
    pid, ask = status(person, "machine")["pid"], "cat /proc/sys/kernel/random/boot_id kept"
    before, kept = inside(person, "machine", ask).stdout.splitlines()
    run_inside(person, "machine", "sudo", "systemctl", "reboot")

    def rebooted() -> list[str]:
        found = inside(person, "machine", ask).stdout.splitlines()
        return found if found and found[0] != before else []

    assert eventually(rebooted, within=WITHIN)[1:] == [kept]
    assert status(person, "machine")["pid"] == pid
    assert inside(person, "machine", f"{ASKING}refused http://evil.example.test/").stdout == "403\n"


def check_crash(person: Person) -> None:
    """With all that runs of the daemon killed at once, the machine lives on, and the next command finds it."""
    pid = status(person, "machine")["pid"]
    boot = inside(person, "machine", "cat /proc/sys/kernel/random/boot_id").stdout
    end(person)
    assert Path(f"/proc/{pid}").exists()
    assert status(person, "machine")["pid"] == pid
    again = inside(person, "machine", "cat /proc/sys/kernel/random/boot_id")
    assert (len(boot), again.stdout) == (37, boot), again
    assert inside(person, "machine", f"{ASKING}refused http://crash.example.test/").stdout == "403\n"


@pytest.mark.vm
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("person", [ROOT, "user"], indirect=True)
def test_a_virtual_machine_is_a_sandbox_like_any_other(
    person: Person, lab: Lab, machine: Machine, vm_image: Path
) -> None:
    """What it may reach is reached, the rest is refused and logged, frames of its own go nowhere, files stay, and nothing is left."""
    machine.require("qemu-system-x86_64", "mke2fs")
    clear_policy(person)
    person.ok("local", "image", "import", str(vm_image), "--as", "debian-vm", timeout=300)
    try:
        made = person.run("create", "machine", *WORDS, "--wait-timeout", f"{WITHIN}s", timeout=WITHIN)
        assert made.returncode == 0, made
        known = status(person, "machine")
        assert known["engine"] == "vm"
        assert known["accelerator"] == "kvm" or "not a security boundary" in made.stderr
        pid = int(known["pid"])
        check_confinement(pid)

        script = """
        cat /proc/1/comm; hostname
        allowed http://web.example.test/
        refused http://evil.example.test/
        refused http://203.0.113.9/
        echo kept > kept; sync
        """
        done = inside(person, "machine", ASKING + script)
        lines = done.stdout.splitlines()
        assert lines[:2] == ["systemd", "machine"], done
        assert '"line": "GET / HTTP/1.1"' in done.stdout, done
        assert lines[-2:] == ["403", "403"], done
        found = eventually(
            lambda: len({each["host"] for each in person.events("machine")}) >= 3 and person.events("machine")
        )
        verdicts = {(each["host"], each["verdict"]) for each in found}
        assert {
            ("web.example.test", "allowed"),
            ("evil.example.test", "blocked"),
            ("203.0.113.9", "blocked"),
        } <= verdicts

        sent = run_inside(person, "machine", "sudo", "python3", "-", text=FRAMES)
        assert "sent 15" in sent.stdout, sent
        # QEMU takes one frame after the other: what passes of these is there once what was asked after them has arrived.
        asked = inside(person, "machine", f"{ASKING}allowed http://web.example.test/")
        assert '"line": "GET / HTTP/1.1"' in asked.stdout, asked
        assert not [each for each in lab.arrivals() if frames.MARK in json.dumps(each)]

        person.ok("stop", "machine", timeout=WITHIN)
        person.ok("local", "image", "save", "machine", "--as", "prepared", timeout=WITHIN)
        images = json.loads(person.ok("local", "image", "list", "-o", "json"))
        assert {each["name"]: each["kind"] for each in images}["prepared"] == "disk"
        refused = person.run("create", "files", "--image", "prepared", timeout=WITHIN)
        assert (refused.returncode, "the disk of a virtual machine" in refused.stderr) == (1, True), refused
        person.ok("local", "image", "remove", "prepared")
        eventually(lambda: not Path(f"/proc/{pid}").exists(), what="the end of QEMU")
        person.ok("start", "machine", timeout=WITHIN)
        assert inside(person, "machine", "cat kept").stdout == "kept\n"
        pid = int(status(person, "machine")["pid"])

        # The next command's daemon finds the cell again through QEMU's process.
        person.ok("local", "down")
        assert inside(person, "machine", "cat kept").stdout == "kept\n"
        os.kill(pid, signal.SIGKILL)
        reason = eventually(lambda: status(person, "machine").get("reason"), within=WITHIN)
        assert "QEMU was killed" in reason
    finally:
        end_all(person)
    eventually(lambda: not Path(f"/proc/{pid}").exists(), what="the end of QEMU")


@pytest.mark.vm
@only_in_test_vm
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("person", ["root", "user"], indirect=True)
def test_a_virtual_machine_keeps_to_its_limits_and_is_copied(
    person: Person, machine: Machine, vm_image: Path, place: Path
) -> None:
    """It gets no more than it was given; a snapshot of it while it runs makes a machine of its own, and is what a restore brings back.

    On its disk are disks that name a file of the host from the beginning, and none of all that opens the file.
    """
    machine.require("qemu-system-x86_64", "mke2fs")
    secret = place / "secret"
    clear_policy(person)
    person.ok("local", "image", "import", str(vm_image), "--as", "debian-vm", timeout=300)
    try:
        create_unseen(person)
        check_limits(person)
        assert inside(person, "machine", "echo kept > kept; sync").returncode == 0
        check_reboot(person)
        secret.write_text(SECRET * 4096)
        write_disk(person, over(str(secret)))
        made_key = inside(person, "machine", "cat /etc/machine-id").stdout
        check_copy(person, made_key, secret)
        write_disk(person, outside(str(secret)))
        person.ok("stop", "machine", timeout=WITHIN)
        (disk,) = person.home.rglob(VIRTUAL_DISK)
        imported = person.run("local", "image", "import", str(disk), "--as", "stolen", timeout=WITHIN)
        assert (imported.returncode, "a disk of a virtual machine" in imported.stderr) == (1, True), imported
        # Back to what it was when the copy was made, with the rest kept.
        assert "the snapshot machine-1" in person.ok("restore", "machine", "then", timeout=WITHIN)
        person.ok("start", "machine", timeout=WITHIN)
        assert inside(person, "machine", "cat kept").stdout == "kept\n"
        check_disk(person, "machine", secret)
        check_crash(person)
    finally:
        secret.unlink(missing_ok=True)
        end_all(person)
