"""The doctor: every machine there is, as facts; and this one."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from tempfile import gettempdir

import pytest

from irons_plugins.local import facts as facts_of_machine
from irons_plugins.local.doctor import Check, examine, judge
from irons_plugins.local.facts import Facts
from irons_plugins.local.places import Places

WELL = Facts()


def _of(facts: Facts, name: str) -> Check:
    return next(check for check in judge(facts) if check.name == name)


def _without(*programs: str, facts: Facts = WELL) -> Facts:
    return replace(facts, programs={**facts.programs, **dict.fromkeys(programs, "")})


def test_a_machine_that_has_all_passes_every_check() -> None:
    """Nothing is in the way, and every name occurs once."""
    checks = judge(WELL)
    assert all(check.ok for check in checks)
    assert len({check.name for check in checks}) == len(checks)


@pytest.mark.parametrize(
    ("facts", "name", "fix"),
    [
        (replace(WELL, release="5.4.0-generic"), "kernel", "upgrade"),
        (replace(WELL, release="what"), "kernel", "upgrade"),
        (replace(WELL, overlay="No such device"), "kernel", "modprobe overlay"),
        (
            replace(WELL, sysctls={"user/max_user_namespaces": "0"}),
            "user-namespaces",
            "user.max_user_namespaces=",
        ),
        (
            replace(WELL, sysctls={"kernel/unprivileged_userns_clone": "0"}),
            "user-namespaces",
            "kernel.unprivileged_userns_clone=1",
        ),
        (replace(WELL, entering="Operation not permitted"), "user-namespaces", "container"),
        (replace(WELL, proc="Operation not permitted"), "user-namespaces", "systempaths=unconfined"),
        (
            replace(
                WELL,
                sysctls={"kernel/apparmor_restrict_unprivileged_userns": "1"},
                entering="Permission denied",
            ),
            "apparmor",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
        (replace(WELL, ids="none", free_ids=165536), "subordinate-ids", "--add-subuids 165536-231071"),
        (_without("newuidmap"), "newuidmap", "apt-get install -y uidmap"),
        (
            _without("newgidmap", facts=replace(WELL, manager="dnf")),
            "newuidmap",
            "dnf install -y shadow-utils",
        ),
        (_without("nft"), "nftables", "sudo apt-get install -y nftables"),
        (replace(WELL, rules="No such file or directory"), "nftables", "nft_tproxy"),
        (_without("crun"), "crun", "sudo apt-get install -y crun"),
        (_without("crun", facts=replace(WELL, manager="")), "crun", "the package crun"),
        (_without("mmdebstrap", facts=replace(WELL, images=0)), "mmdebstrap", "mmdebstrap"),
        (_without("ssh-keygen"), "ssh", "openssh-client"),
        (replace(WELL, state_problem="/x is not yours"), "state", "XDG_STATE_HOME"),
        (replace(WELL, filesystem="nfs4"), "state", "local disk"),
        (replace(WELL, free=1000), "disk", "make room"),
        (replace(WELL, unreadable=("/etc/resolv.conf",)), "names", "chmod a+r /etc/resolv.conf"),
    ],
)
def test_each_lack_is_found_and_comes_with_the_line_that_mends_it(facts: Facts, name: str, fix: str) -> None:
    """The check of that name fails, says why in one line, and its fix is the one for this machine."""
    check = _of(facts, name)
    assert not check.ok
    assert check.what
    assert "\n" not in check.what + check.fix
    assert fix in check.fix


def test_root_needs_no_sudo_and_no_ids() -> None:
    """As root the fixes are plain lines, and what only others need is well."""
    facts = _without("crun", "newuidmap", facts=replace(WELL, uid=0, user="root"))
    assert _of(facts, "crun").fix == "apt-get install -y crun"
    assert _of(facts, "newuidmap").ok
    assert _of(replace(facts, sysctls={"kernel/unprivileged_userns_clone": "0"}), "user-namespaces").ok


@pytest.mark.parametrize(
    "facts",
    [
        replace(WELL, tun=False),
        replace(WELL, limits="no control group is delegated to irons"),
        _without("mmdebstrap"),
    ],
)
def test_what_is_only_better_to_have_fails_nothing(facts: Facts) -> None:
    """A machine without it is told so and passes."""
    assert all(check.ok for check in judge(facts))


def test_a_missing_program_is_not_blamed_on_the_kernel() -> None:
    """Where newuidmap is missing, user namespaces aren't said to be at fault."""
    facts = replace(
        _without("newuidmap"), entering="newuidmap is not installed", overlay=None, proc=None, rules=None
    )
    assert [check.name for check in judge(facts) if not check.ok] == ["newuidmap"]


def test_another_system_is_told_at_once() -> None:
    """What isn't Linux has one check, and it fails."""
    (check,) = judge(replace(WELL, system="Darwin"))
    assert not check.ok


@pytest.mark.needs("root")
def test_files_that_the_gateway_cannot_read_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only root may read is found, behind a link too; what anybody may read, or is missing, is not."""
    room = tmp_path / "etc"
    room.mkdir()
    for directory in (room, *room.parents):
        if directory.stat().st_uid == os.geteuid() and str(directory).startswith(gettempdir() + "/"):
            directory.chmod(0o755)
    closed, opened, link = room / "closed", room / "open", room / "link"
    closed.touch(0o600)
    opened.touch(0o644)
    link.symlink_to(closed)
    paths = tuple(str(each) for each in (closed, opened, link, room / "missing"))
    monkeypatch.setattr(facts_of_machine, "RESOLVING", paths)
    places = Places(tmp_path / "state", tmp_path / "runtime")
    assert facts_of_machine.gather(places).unreadable == (str(closed), str(link))


def test_this_machine_is_examined_for_real(tmp_path: Path) -> None:
    """Every check gives an answer here, and a state directory that can't be used is explained."""
    places = Places(tmp_path / "state", tmp_path / "runtime")
    assert {check.name for check in examine(places)} == {check.name for check in judge(WELL)}
    (tmp_path / "file").write_text("")
    broken = Places(tmp_path / "file" / "state", tmp_path / "runtime2")
    found = next(check for check in examine(broken) if check.name == "state")
    assert not found.ok
    assert "file" in found.what
