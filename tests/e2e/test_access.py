"""A machine without an SSH key, and a second person who is let into a sandbox and out again."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.lab import Person, eventually


@pytest.fixture
def keyless(person: Person) -> Iterator[Person]:
    """Someone whose ~/.ssh is not there for a while."""
    ssh, aside = person.home / ".ssh", person.home / ".ssh-aside"
    ssh.rename(aside)
    try:
        yield person
    finally:
        person.run("destroy", "keyless", "--force", timeout=180)
        shutil.rmtree(ssh, ignore_errors=True)
        aside.rename(ssh)


def test_a_key_of_irons_own_and_a_guest(keyless: Person, tmp_path: Path) -> None:
    """Every way in works with the key that irons made; a guest's session ends when the guest's key is removed."""
    made = keyless.run("create", "keyless", timeout=180)
    assert "there is no key in ~/.ssh, so irons made one for the sandboxes of local" in made.stderr
    assert keyless.inside("keyless", "id -un").stdout == "irons\n"
    printed = shlex.split(keyless.ok("ssh", "keyless", "--command"))
    words = [*keyless.lab.enter(user=keyless.user), *printed, "id", "-un"]
    assert (
        subprocess.run(words, capture_output=True, text=True, check=True, env=keyless.env).stdout == "irons\n"
    )
    guest = tmp_path / "guest"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(guest)], check=True)
    public = keyless.home / "guest.pub"
    public.write_text(guest.with_suffix(".pub").read_text())
    public.chmod(0o644)
    # A keeper that did not make the cell can change the keys, too.
    keyless.ok("local", "down")
    keyless.ok("access", "keyless", "add", str(public))
    (own, theirs) = json.loads(keyless.ok("access", "keyless", "-o", "json"))
    assert own["comment"] == "irons"
    at = printed.index("-p")
    port, where = printed[at + 1], printed[-1]
    options = ["-F", "none", "-i", str(guest), "-p", port, "-o", "StrictHostKeyChecking=no"]
    options += ["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR"]
    session = subprocess.Popen(
        [*keyless.lab.enter(), "ssh", *options, where, "echo there; sleep 600"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert session.stdout is not None
        assert session.stdout.readline() == "there\n"
        keyless.ok("access", "keyless", "remove", theirs["fingerprint"])
        eventually(lambda: session.poll() is not None, what="the guest's session to end")
        assert session.returncode == 255
    finally:
        session.kill()
        session.communicate()
    again = [*keyless.lab.enter(), "ssh", *options, where, "true"]
    assert subprocess.run(again, capture_output=True, check=False).returncode == 255
    assert keyless.inside("keyless", "id -un").stdout == "irons\n"
