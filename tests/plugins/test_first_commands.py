"""The commands of a sandbox's life, egress and audit, against a plain v0 server."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from irons.testing import FakeApi, Runner

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB1c0LmSsZ2oc2KSYsHcE9m2bL2oOe1zL0T0rA3e7Q2o me@here\n"


@pytest.fixture
def key(irons_env: dict[str, str]) -> Path:
    """A key pair in ~/.ssh; the path is the public one's."""
    ssh = Path(irons_env["HOME"]) / ".ssh"
    ssh.mkdir(mode=0o700)
    (ssh / "id_ed25519").write_text("not read by irons")
    public = ssh / "id_ed25519.pub"
    public.write_text(KEY)
    return public


def test_create_sends_the_key_and_waits(run_irons: Runner, fake_api: FakeApi, key: Path) -> None:
    """`create` sends the public key's whole text and returns when the sandbox is ready."""
    done = run_irons("create", "one").ok()
    assert done.out == "🟢 one is ready\n"
    assert fake_api.calls[0].body == {"name": "one", "public_key": KEY}
    assert fake_api.sandboxes["one"].status == "ready"


def test_the_whole_workflow(run_irons: Runner, fake_api: FakeApi, key: Path) -> None:
    """A sandbox is created, locked, looked at, stopped, started and destroyed."""
    run_irons("create", "one").ok()
    done = run_irons("egress", "mode", "deny").ok()
    assert done.out == "the mode is deny for all sandboxes: what no rule allows is blocked\n"
    assert run_irons("egress", "allow", "Example.com", "*.example.org").ok().lines == [
        "example.com is allowed for all sandboxes. example.com alone, and no name below it, on ports 443 and 80.",
        (
            "*.example.org is allowed for all sandboxes. Every name below example.org, however deep, but not example.org itself, "
            "on ports 443 and 80."
        ),
    ]
    assert run_irons("egress", "deny", "evil.example").ok().err == ""
    assert run_irons("egress", "list").ok().out == (
        "allow\texample.com\t\t\t\nallow\t*.example.org\t\t\t\ndeny\tevil.example\t\t\t\n"
    )
    assert "state\tready\n" in run_irons("status", "one").ok().out
    assert run_irons("list", "-q").ok().out == "one\n"
    fake_api.record("example.com")
    fake_api.record("example2.com", allowed=False)
    lines = run_irons("audit", "egress", "one", env={"TZ": "America/Denver"}).ok().lines
    assert [line.split("  ", 1)[1] for line in lines] == [
        "ALLOWED  example.com  (mode: deny)",
        "DENIED   example2.com  (mode: deny)",
    ]
    assert run_irons("stop", "one").ok().out == "🟠 one is stopped\n"
    assert run_irons("start", "one").ok().out == "🟢 one is ready\n"
    assert run_irons("destroy", "one").code == 5
    run_irons("destroy", "one", "--force").ok()
    assert fake_api.sandboxes == {}


def test_ssh_becomes_openssh(run_irons: Runner, fake_api: FakeApi, key: Path) -> None:
    """`ssh` becomes OpenSSH with the key that the sandbox was created with, and `--command` prints the same way in."""
    run_irons("create", "one").ok()
    program = run_irons("ssh", "one", "--", "echo", "a b").program
    assert program is not None
    assert program.argv[0] == "ssh"
    assert program.argv[-3:] == ("agent@127.0.0.1", "--", "echo 'a b'")
    assert f"IdentityFile={key.with_suffix('')}" in program.argv
    printed = shlex.split(run_irons("ssh", "one", "--command").ok().out)
    assert printed[:3] == ["ssh", "-F", "none"]
    assert printed[-3:] == ["-p", "2222", "agent@127.0.0.1"]


def test_what_prints_differently_has_a_way(run_irons: Runner, fake_api: FakeApi, key: Path) -> None:
    """The members that docs/from-the-original.md names are in the JSON of their commands."""
    page = (Path(__file__).parents[2] / "docs" / "from-the-original.md").read_text()
    for line, member, value in (
        ("create one", "id", "sb_0000000000000001"),
        ("status one", "status", "ready"),
        ("egress mode", "mode", "warn"),
    ):
        done = run_irons(*line.split(), "-o", "json").ok()
        assert json.loads(done.out)[member] == value
        assert f"irons {line.replace('one', 'NAME')} -o json \\| jq -r .{member}`" in page


def test_the_servers_images_are_listed(run_irons: Runner, own_api: FakeApi) -> None:
    """`image list` asks the server in use; a plain v0 server cannot say."""
    own_api.images = [
        {"name": "slim", "created_at": "2026-02-19T16:00:00Z", "size": 1 << 20, "source": "built"}
    ]
    assert run_irons("image", "list").ok().out.startswith("slim\t2026-02-19T16:00:00Z\t1 MiB\tbuilt")
    own_api.extensions = ()
    assert "lists its images" in run_irons("image", "list").err
