"""Paths in a sandbox for completion: over a kept connection alone, bounded, and nothing that a terminal would obey."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from irons.files import digest
from irons.settings.settings import Settings, load
from irons.testing import FakeApi
from irons_plugins.ssh.connect.remote_files import MOST, paths_like

from .conftest import Irons, Sshd

ODD = ("a b", "it's", "$(id)", "-rf", "*", "ü")
HOSTILE = (b"\x1b[2J", b"a\nb", b"a\tb", b"\xff\xfe", "a\u202eb".encode(), "a\u00a0b".encode())


@pytest.fixture
def there(into: Irons, sshd: Sshd) -> Path:
    """A directory in the sandbox, with names of every kind."""
    directory = sshd.home / "remote"
    directory.mkdir(exist_ok=True)
    for name in (*ODD, ".hidden"):
        (directory / name).touch()
    for raw in HOSTILE:
        Path(os.fsdecode(os.fsencode(directory) + b"/" + raw)).touch()
    (directory / "folder").mkdir(exist_ok=True)
    (directory / "dangling").unlink(missing_ok=True)
    (directory / "dangling").symlink_to("nowhere")
    assert into("exec", "one", "--", "true").returncode == 0
    return directory


def test_paths_go_on_over_a_kept_connection(
    into: Irons, there: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names come as they are, folders with a slash, hidden ones after a dot; what can't be shown and typed is left out."""
    monkeypatch.setattr("irons_plugins.ssh.connect.remote_files.WITHIN", 60.0)
    settings = load({}, into.env)
    found = paths_like(settings, "one", f"{there}/")
    shown = [f"{there}/{name}" for name in (*ODD, "dangling", "folder/")]
    assert sorted(found) == sorted(shown)
    assert [about for about in found.values() if about] == ["folder"]
    assert paths_like(settings, "one", f"{there}/.") == {f"{there}/.hidden": ""}
    assert paths_like(settings, "one", f"{there}/-") == {f"{there}/-rf": ""}
    assert paths_like(settings, "one", f"{there}/f*") == {}
    assert paths_like(settings, "one", "~/remote/fol") == {"~/remote/folder/": "folder"}
    assert paths_like(settings, "one", f"{there}/nothing/") == {}
    assert paths_like(settings, "one", "a\nb") == {}
    for number in range(MOST + 100):
        (there / "folder" / f"{number}").touch()
    assert len(paths_like(settings, "one", f"{there}/folder/")) <= MOST


def test_nothing_is_asked_without_one(into: Irons, fake_api: FakeApi, sshd: Sshd) -> None:
    """Tab makes no connection and asks no server: `irons __complete` offers nothing then."""
    done = into("__complete", "exec", "one", "--", "cat", f"{sshd.home}/")
    assert (done.returncode, done.stdout) == (0, b"")
    assert fake_api.lines() == []


@pytest.mark.usefixtures("there")
def test_every_shell_gets_them(into: Irons, sshd: Sshd) -> None:
    """`irons __complete` offers them behind exec's `--`, and after scp's colon."""
    into.patient = ("irons_plugins.ssh.connect.remote_files.WITHIN",)
    done = into("__complete", "exec", "one", "--", "cat", f"{sshd.home}/remote/f")
    assert done.stdout.decode() == f"{sshd.home}/remote/folder/\tfolder\n"
    done = into("__complete", "scp", f"one:{sshd.home}/remote/it")
    assert done.stdout.decode() == f"one:{sshd.home}/remote/it's\t\n"


# A sandbox that answers badly: another program in the place of OpenSSH's client.


@pytest.fixture
def settings(irons_env: dict[str, str], tmp_path: Path) -> Iterator[Settings]:
    """Settings whose sandbox `bad` has a kept connection, and whose `ssh` is the script that the test writes."""
    (tmp_path / "bin").mkdir()
    env = {**irons_env, "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "XDG_RUNTIME_DIR": str(tmp_path)}
    settings = load({}, env)
    directory = tmp_path / "irons" / "ssh"
    directory.mkdir(parents=True)
    descriptor = os.open(directory, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as master:
        master.bind(f"/proc/self/fd/{descriptor}/{digest(settings.api_url, 'bad')[:10]}-0")
        master.listen()
        yield settings
    os.close(descriptor)


def answering(tmp_path: Path, script: str) -> None:
    """Put a program in the place of OpenSSH's client."""
    path = tmp_path / "bin" / "ssh"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.process
def test_a_slow_sandbox_is_not_waited_for(settings: Settings, tmp_path: Path) -> None:
    """What does not end is ended, and no process is left; nothing at all may have come by then."""
    answering(tmp_path, f"echo $$ >{tmp_path}/pid; printf 'one\\0tw'; exec sleep 1000")
    found = paths_like(settings, "bad", "")
    assert set(found) <= {"one"}
    pid = tmp_path / "pid"
    assert not pid.exists() or not Path(f"/proc/{pid.read_text().strip()}").exists()


@pytest.mark.process
@pytest.mark.parametrize(
    "script",
    [
        "yes | tr '\\n' '\\0'",
        "tr '\\0' x </dev/zero",
        "cat /dev/zero",
        "yes ../../etc/passwd | head -n 9 | tr '\\n' '\\0'; printf './\\0../\\0a/b\\0'",
        "exit 255",
    ],
)
def test_a_flood_is_cut(settings: Settings, tmp_path: Path, script: str) -> None:
    """Names without end, one name without end, empty names, paths in the place of names: at most a name is taken."""
    answering(tmp_path, script)
    assert set(paths_like(settings, "bad", "")) <= {"y"}
