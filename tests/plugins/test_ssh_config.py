"""`ssh-config`: sandboxes by name for ssh and what uses it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from irons.testing import FakeApi, Runner, faults
from irons_plugins.ssh.config.blocks import MARK

from .conftest import Irons

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB1c0LmSsZ2oc2KSYsHcE9m2bL2oOe1zL0T0rA3e7Q2o me@here\n"


@pytest.fixture
def config(irons_env: dict[str, str]) -> Path:
    """Where the person's own configuration is; it is not there yet."""
    return Path(irons_env["HOME"]) / ".ssh" / "config"


def asked(config: Path, host: str) -> dict[str, list[str]]:
    """Return what OpenSSH makes of a host with this configuration."""
    done = subprocess.run(
        ["ssh", "-F", config, "-G", host],
        capture_output=True,
        text=True,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    told: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        told.setdefault(key, []).append(value)
    return told


def test_a_block_is_printed(run_irons: Runner, fake_api: FakeApi, config: Path) -> None:
    """Without --install the Host block of one sandbox is printed, and nothing is written."""
    fake_api.add("one")
    out = run_irons("ssh-config", "one").ok().out
    assert out.startswith("Host one.irons\n  HostName 127.0.0.1\n  Port 2222\n  User agent\n")
    assert "  ForwardAgent no\n" in out
    assert not config.exists()


def test_all_that_can_be_reached(run_irons: Runner, fake_api: FakeApi) -> None:
    """Without a name every sandbox that runs gets a block; stderr says which are left out, and why."""
    fake_api.add("one")
    fake_api.add("two", "stopped")
    fake_api.add("three")
    done = run_irons("ssh-config").ok()
    assert [line for line in done.lines if line.startswith("Host ")] == ["Host one.irons", "Host three.irons"]
    assert done.err == "irons: two is left out: sandbox two is stopped\n"
    assert run_irons("ssh-config", "two").code == 5


@pytest.mark.parametrize("name", ["a*", "a?", "!a", "a,b", "ä", 'a"b', "a#b", "%h"])
def test_names_that_mean_something_to_openssh(run_irons: Runner, fake_api: FakeApi, name: str) -> None:
    """A name with characters that OpenSSH's configuration understands otherwise gets no block."""
    fake_api.add(name)
    assert run_irons("ssh-config", name).code == 2
    done = run_irons("ssh-config").ok()
    assert done.out.strip() == ""
    assert "left out" in done.err


def test_it_leads_there(into: Irons, config: Path) -> None:
    """Once installed, plain ssh finds the sandbox by its name, with its key and its host key."""
    assert into("ssh-config", "--install").returncode == 0
    done = subprocess.run(
        ["ssh", "-F", config, "one.irons", "echo there"],
        capture_output=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, b"there\n", b"")


def test_scp_and_rsync_like_tools_find_it(into: Irons, config: Path, tmp_path: Path) -> None:
    """The same name serves scp."""
    into("ssh-config", "--install")
    (tmp_path / "x").write_text("text")
    subprocess.run(["scp", "-q", "-F", config, tmp_path / "x", f"one.irons:{tmp_path}/y"], check=True)
    assert (tmp_path / "y").read_text() == "text"


@pytest.mark.process
def test_install_and_uninstall_leave_the_rest_alone(
    run_irons: Runner, fake_api: FakeApi, config: Path
) -> None:
    """The Include line goes to the top, once; what was there stays byte for byte, its mode too."""
    fake_api.add("one")
    config.parent.mkdir(mode=0o700)
    before = "# mine \udcff\f\nHost *\n  User me\n"
    config.write_text(before, errors="surrogateescape")
    config.chmod(0o644)
    for _ in range(2):
        assert run_irons("ssh-config", "--install").ok().out == "ssh one.irons leads to one\n"
    lines = config.read_text(errors="surrogateescape").splitlines()
    assert lines[0] == MARK
    assert lines[1].startswith("Include ")
    assert [line for line in lines if line.startswith("Include ")] == [lines[1]]
    assert config.stat().st_mode & 0o777 == 0o644
    assert asked(config, "one.irons")["user"] == ["agent"]
    assert asked(config, "other")["user"] == ["me"]
    run_irons("ssh-config", "--uninstall").ok()
    assert config.read_text(errors="surrogateescape") == before
    assert "does not include" in run_irons("ssh-config", "--uninstall").ok().err


@pytest.mark.process
def test_a_linked_configuration_stays_a_link(
    run_irons: Runner, fake_api: FakeApi, config: Path, tmp_path: Path
) -> None:
    """Who keeps the configuration elsewhere keeps the link."""
    real = tmp_path / "dotfiles"
    real.write_text("Host x\n")
    config.parent.mkdir(mode=0o700)
    config.symlink_to(real)
    run_irons("ssh-config", "--install").ok()
    assert config.is_symlink()
    assert "Include" in real.read_text()


@pytest.mark.process
def test_the_persons_configuration_forwards_nothing_back(
    run_irons: Runner, fake_api: FakeApi, config: Path
) -> None:
    """Agent, X11, local commands and remote forwards for all hosts do not hold for sandboxes; stderr says what that costs."""
    fake_api.add("one")
    config.parent.mkdir(mode=0o700)
    config.write_text(
        "Host *\n  ForwardAgent yes\n  ForwardX11 yes\n  RemoteForward 9999 localhost:22\n"
        "  PermitLocalCommand yes\n  LocalCommand evil\n  Tunnel yes\n"
    )
    done = run_irons("ssh-config", "--install").ok()
    assert "ClearAllForwardings" in done.err
    told = asked(config, "one.irons")
    assert told["clearallforwardings"] == ["yes"]
    for key in ("forwardagent", "forwardx11", "permitlocalcommand", "tunnel"):
        assert told[key][0] in ("no", "false"), key
    assert asked(config, "other")["forwardagent"] == ["yes"]


@pytest.mark.process
def test_local_forwards_stay_possible(run_irons: Runner, fake_api: FakeApi, config: Path) -> None:
    """Where nothing forwards back, editors may forward ports of this machine to the sandbox."""
    fake_api.add("one")
    config.parent.mkdir(mode=0o700)
    config.write_text("Host *\n  LocalForward 9998 localhost:22\n")
    done = run_irons("ssh-config", "--install").ok()
    assert "ClearAllForwardings" not in done.err
    assert asked(config, "one.irons")["clearallforwardings"] == ["no"]


@pytest.mark.process
def test_create_and_destroy_keep_it_current(run_irons: Runner, fake_api: FakeApi, config: Path) -> None:
    """While it is installed, a new sandbox is found at once, and one that is gone no more."""
    config.parent.mkdir(mode=0o700)
    (config.parent / "id_rsa.pub").write_text(KEY)
    run_irons("create", "before").ok()
    run_irons("ssh-config", "--install").ok()
    run_irons("create", "one").ok()
    assert asked(config, "one.irons")["hostname"] == ["127.0.0.1"]
    run_irons("destroy", "one", "--force").ok()
    assert asked(config, "one.irons")["hostname"] == ["one.irons"]
    assert asked(config, "before.irons")["hostname"] == ["127.0.0.1"]


def test_a_create_is_a_success_all_the_same(run_irons: Runner, fake_api: FakeApi, config: Path) -> None:
    """Where the block of a new sandbox can't be written the create says so and succeeds."""
    config.parent.mkdir(mode=0o700)
    (config.parent / "id_rsa.pub").write_text(KEY)
    run_irons("ssh-config", "--install").ok()
    fake_api.fail(faults.error(500, "no ssh"), on="GET /sandboxes/one/ssh")
    done = run_irons("create", "one").ok()
    assert "one is not in the installed ssh configuration: no ssh" in done.err


def test_uninstall_stands_alone(run_irons: Runner, fake_api: FakeApi) -> None:
    """--uninstall takes neither a name nor --install."""
    assert run_irons("ssh-config", "one", "--uninstall").code == 2
    assert run_irons("ssh-config", "--install", "--uninstall").code == 2


@pytest.mark.process
def test_a_state_directory_with_spaces(
    run_irons: Runner, fake_api: FakeApi, config: Path, tmp_path: Path
) -> None:
    """Paths with spaces are quoted as OpenSSH wants them."""
    run_irons.env["XDG_STATE_HOME"] = str(tmp_path / "my state")
    fake_api.add("one")
    fake_api.ssh = {**fake_api.ssh, "host_keys": [KEY.strip()]}
    run_irons("ssh-config", "--install").ok()
    told = asked(config, "one.irons")
    assert told["user"] == ["agent"]
    assert Path(told["userknownhostsfile"][0]).is_file()
    run_irons("ssh-config", "--uninstall").ok()
    assert not config.exists()


@pytest.mark.process
def test_a_configuration_that_irons_made_goes_with_it(
    run_irons: Runner, fake_api: FakeApi, config: Path
) -> None:
    """It is removed where nothing else is in it by then; one that was there before stays, an empty one too."""
    fake_api.add("one")
    run_irons("ssh-config", "--install").ok()
    config.write_text(config.read_text() + "Host mine\n")
    run_irons("ssh-config", "--uninstall").ok()
    assert config.read_text() == "Host mine\n"
    config.write_text("")
    run_irons("ssh-config", "--install").ok()
    run_irons("ssh-config", "--uninstall").ok()
    assert config.read_text() == ""


@pytest.mark.process
def test_a_sandbox_that_no_key_opens_is_left_out(run_irons: Runner, own_api: FakeApi, config: Path) -> None:
    """Its entry could only be refused: it is left out with the reason, and an error where it was named."""
    run_irons("create", "mine").ok()
    other = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAxUWgVfXYXqyGIWSsTNp8Nm8XNPn5pUOq3ZMh5W1r9C other\n"
    own_api.add("theirs", public_key=other)
    done = run_irons("ssh-config", "--install").ok()
    assert done.out == "ssh mine.irons leads to mine\n"
    (own,) = (Path(run_irons.env["XDG_STATE_HOME"]) / "irons/ssh/keys").glob("*/id_ed25519.pub")
    left_out = "theirs is left out: none of your keys opens theirs; irons access theirs add"
    assert f"{left_out} {own}\n" in done.err
    assert run_irons("ssh-config", "theirs").code == 1
    usual = config.parent / "id_ed25519.pub"
    usual.write_text(own.read_text())
    assert f"{left_out} {usual}\n" in run_irons("ssh-config", "--install").ok().err
    usual.write_text(other)
    assert "leads to theirs" in run_irons("ssh-config", "--install").ok().out
    own_api.extensions = ()
    own_api.sandboxes["theirs"].public_key = ""
    assert "leads to theirs" in run_irons("ssh-config", "--install").ok().out


def test_places_that_can_not_be_written(run_irons: Runner, fake_api: FakeApi, config: Path) -> None:
    """A configuration that can't be read or written is one clear line, and nothing is changed."""
    fake_api.add("one")
    config.parent.mkdir(mode=0o700)
    config.mkdir()
    done = run_irons("ssh-config", "--install")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert f"{config} can't be read" in done.err
    config.rmdir()
    config.parent.rmdir()
    config.parent.write_text("a file")
    assert run_irons("ssh-config", "--install").code == 2
    assert run_irons("ssh-config", "--install", env={"XDG_STATE_HOME": "/dev/null"}).code == 2


def test_host_keys_that_can_not_be_kept(run_irons: Runner, fake_api: FakeApi) -> None:
    """Where the host key of the server can't be written, nothing is run unchecked."""
    fake_api.add("one")
    fake_api.ssh = {**fake_api.ssh, "host_keys": [KEY.strip()]}
    done = run_irons("ssh", "one", env={"XDG_STATE_HOME": "/dev/null"})
    assert (done.code, done.program) == (125, None)
    assert "can't be written" in done.err


def test_destroy_survives_a_broken_state_directory(run_irons: Runner, fake_api: FakeApi) -> None:
    """What is kept of a sandbox that can't be removed costs a line; the destroy is a success."""
    fake_api.add("one", "stopped")
    state = Path(run_irons.env["XDG_STATE_HOME"]) / "irons" / "ssh"
    (state / "known_hosts" / "default" / "one").mkdir(parents=True)
    done = run_irons("destroy", "one").ok()
    assert "could not be removed" in done.err
