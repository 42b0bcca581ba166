"""A sandbox that fills the disk of the backend: what fails says so, and it can be stopped and destroyed all the same."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.lab import Person, eventually
from tests.e2e.machines import WITHIN, inside, only_in_test_vm, status
from tests.machine import Machine

FILL = "i=0; while :; do i=$((i + 1)); cat /dev/zero >> ~/fill; head -c 4096 /dev/zero > ~/fill$i; done 2>/dev/null"


@pytest.fixture(params=["root", "user"])
def crowded(
    request: pytest.FixtureRequest, make_person: Callable[..., Person], image_tar: Path
) -> Iterator[Person]:
    """Someone whose state lies on a small disk of its own."""
    if request.param == "root":
        base = make_person()
    else:
        program, user = request.getfixturevalue("public_program"), request.getfixturevalue("ordinary_user")
        base = make_person(program=program, user=user)
    base.ok("local", "down")
    image, place = base.home / "disk.img", base.home / "disk"
    place.mkdir()
    for words in (
        ["truncate", "-s", "2G", str(image)],
        ["mkfs.ext4", "-q", "-m", "0", "-O", "^has_journal", str(image)],
        [*base.lab.enter(), "mount", "-o", "loop", str(image), str(place)],
        [*base.lab.enter(), "chown", base.user or "root", str(place)],
    ):
        subprocess.run(words, check=True)
    person = replace(base, more={"XDG_STATE_HOME": str(place)})
    try:
        person.ok("local", "image", "import", str(image_tar), "--as", "debian", timeout=300)
        yield person
    finally:
        person.run("local", "uninstall", "--purge", "--yes", timeout=180)
        subprocess.run([*base.lab.enter(), "umount", str(place)], check=True)
        image.unlink()


def test_a_full_disk_is_said_and_does_not_keep_a_sandbox_alive(crowded: Person) -> None:
    """A sandbox writes on and on: another one hears why nothing passes, and both can be removed."""
    crowded.ok("create", "filler", timeout=180)
    crowded.ok("create", "other", timeout=180)
    most = str(_free(crowded) - (64 << 20))
    words = ["fallocate", "-l", most, str(crowded.home / "disk/most")]
    subprocess.run([*crowded.lab.enter(), *words], check=True)
    crowded.inside("filler", f"nohup sh -c '{FILL}' >/dev/null 2>&1 & head -c 80000000 /dev/zero > ~/more")
    # Records fit into what is left of a block; the sandbox was never entered before.
    script = "for i in $(seq 200); do curl -sS http://web.example.test/ || exit; done"
    tried = crowded.inside("other", script)
    assert tried.returncode not in (0, 125), tried
    assert "refused and not recorded: the disk that holds the audit log is full" in tried.stderr
    why = json.loads(crowded.ok("audit", "why", "other", "-o", "json"))
    assert (why["cause"], why["reason"]) == (
        "journal",
        "the audit log cannot be written: the disk is full",
    )
    assert "is full: connections of sandboxes are refused" in crowded.ok("local", "logs")
    crowded.ok("stop", "filler")
    assert json.loads(crowded.ok("status", "filler", "-o", "json"))["status"] == "stopped"
    # While it was being stopped it may have taken what the reserve gave: a start needs room that someone made.
    words = ["truncate", "--size", "-64M", str(crowded.home / "disk/most")]
    subprocess.run([*crowded.lab.enter(), *words], check=True)
    crowded.ok("start", "filler")
    crowded.inside("filler", f"nohup sh -c '{FILL}' >/dev/null 2>&1 &")
    crowded.ok("destroy", "filler", "--force")
    once = script.replace("200", "1")
    eventually(lambda: "web.example.test" in crowded.inside("other", once).stdout, what="a way out again")
    crowded.ok("destroy", "other", "--force")
    assert crowded.ok("list") == ""


def _free(person: Person) -> int:
    words = [*person.lab.enter(), "df", "-B1", "--output=avail", str(person.home / "disk")]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout.split()[-1])


@pytest.mark.vm
@only_in_test_vm
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("crowded", ["user"], indirect=True)
def test_a_guest_goes_on_once_there_is_room(crowded: Person, machine: Machine, vm_image: Path) -> None:
    """A virtual machine whose write does not fit stands still, `status` says why, and what it wrote is whole when there is room again."""
    machine.require("qemu-system-x86_64", "mke2fs")
    crowded.ok("local", "image", "import", str(vm_image), "--as", "debian-vm", timeout=600)
    words = ("--engine", "vm", "--memory", "512M", "--disk", "4G", "--wait-timeout", f"{WITHIN}s")
    crowded.ok("create", "machine", *words, timeout=WITHIN)
    most = crowded.home / "disk/most"
    filled = str(_free(crowded) - (128 << 20))
    subprocess.run([*crowded.lab.enter(), "fallocate", "-l", filled, str(most)], check=True)
    # Behind no connection: one that is kept ends when the guest has stood still for 30 seconds, which is not for this test to be quicker than.
    # By large pieces: an emulated processor takes minutes for as much in small ones.
    script = (
        "head -c 1M /dev/urandom >piece; all() { for i in $(seq 200); do cat piece; done; };"
        " all >fill; sync; sha256sum <fill; all | sha256sum"
    )
    begun = inside(crowded, "machine", f"nohup sh -c '{{ {script}; }} >sums' >/dev/null 2>&1 &")
    assert begun.returncode == 0, begun
    full = eventually(lambda: status(crowded, "machine").get("disk_note"), within=WITHIN)
    assert "goes on by itself" in full
    subprocess.run([*crowded.lab.enter(), "rm", str(most)], check=True)

    def sums() -> list[str]:
        # The first of these may go by a connection that the pause has ended.
        found = inside(crowded, "machine", "cat sums").stdout.splitlines()
        return found if len(found) == 2 else []

    written, expected = eventually(sums, within=WITHIN, what="both sums")
    assert written == expected
    assert "disk_note" not in status(crowded, "machine")
    crowded.ok("destroy", "machine", "--force", timeout=180)
