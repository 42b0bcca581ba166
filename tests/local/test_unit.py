"""The systemd user unit: its text, and that it goes without a trace. No systemd runs here: its programs are stand-ins."""

from __future__ import annotations

from pathlib import Path

import pytest

from irons.errors import LocalError
from irons_plugins.fleet import member_unit
from irons_plugins.local import systemd


def test_the_unit_runs_this_interpreter() -> None:
    """White space, percent and dollar signs of its path are written as systemd.service(5) wants them."""
    assert "ExecStart=/usr/bin/python3 -m irons local up --foreground\n" in systemd.render("/usr/bin/python3")
    assert 'ExecStart="/a b/50%%/$$x" -m irons' in systemd.render("/a b/50%/$x")


def test_the_unit_refers_to_nothing_that_is_not_installed() -> None:
    """There is no manual page, and systemd-analyze complains of one that it does not find."""
    assert "Documentation=" not in systemd.render("/usr/bin/python3")


@pytest.mark.process
def test_removal_disables_it_and_leaves_nothing(tmp_path: Path) -> None:
    """The user's systemd is asked to stop it, and unit and link are gone also where there is no systemd to listen."""
    log = tmp_path / "told"
    program = tmp_path / "bin/systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >>{log}\nexit 1\n')
    program.chmod(0o755)
    env = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": "", "PATH": str(program.parent)}
    path = systemd.write(env, "/usr/bin/python3")
    link = path.parent / "default.target.wants" / systemd.NAME
    link.parent.mkdir()
    link.symlink_to(path)
    systemd.remove(env)
    assert log.read_text() == "--user disable --now irons.service\n"
    assert not path.exists()
    assert not link.is_symlink()
    systemd.remove(env)
    assert log.read_text().count("\n") == 1


@pytest.mark.process
def test_a_unit_is_checked_where_a_systemd_can(tmp_path: Path) -> None:
    """Its complaint is shown as it is; without a systemd of this user it is not asked, for it would complain of that."""
    program = tmp_path / "bin/systemd-analyze"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "irons.service: $1 $2" >&2\nexit 1\n')
    program.chmod(0o755)
    env = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": "", "PATH": str(program.parent)}
    path = systemd.write(env, "/usr/bin/python3")
    assert systemd.complaint(path, {**env, "PATH": ""}) == ""
    assert systemd.complaint(path, env).startswith("no systemd of yours runs, so the unit is untested")
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    assert systemd.runs_machine(tmp_path / "run")
    assert not systemd.runs_machine(tmp_path)
    running = {**env, "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    assert systemd.complaint(path, running) == "irons.service: --user verify"


def test_a_unit_that_cannot_be_removed_is_told(tmp_path: Path) -> None:
    """One line says which file and why."""
    env = {"HOME": str(tmp_path), "XDG_CONFIG_HOME": "", "PATH": ""}
    systemd.unit_path(env).mkdir(parents=True)
    with pytest.raises(LocalError, match=r"irons\.service can't be removed"):
        systemd.remove(env)


def test_the_unit_of_a_member_knows_where_its_state_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service of the machine is given no HOME by systemd, and would have no identity without one."""
    monkeypatch.setattr(member_unit, "DIRECTORY", tmp_path / "system")
    env = {"HOME": "/root", "XDG_STATE_HOME": "/srv/a b%$", "XDG_CONFIG_HOME": "", "IRONS_API_KEY": "secret"}
    path = member_unit.write(env, "/usr/bin/python3")
    lines = path.read_text().splitlines()
    assert path.name == "irons-member.service"
    assert [line for line in lines if line.startswith("Environment=")] == [
        "Environment=HOME=/root",
        'Environment="XDG_STATE_HOME=/srv/a b%%$"',
    ]
    assert "ExecStart=/usr/bin/python3 -m irons member run" in lines
    assert "secret" not in path.read_text()
