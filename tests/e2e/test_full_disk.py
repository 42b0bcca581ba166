"""A sandbox that fills the disk of the backend: what fails says so, and it can be stopped and destroyed all the same."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.lab import Person, eventually

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
