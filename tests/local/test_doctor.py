"""The doctor: every machine there is, as facts; and this one."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from tests.containers import Container, Yard

from irons_local.doctor import facts as facts_of_machine
from irons_local.doctor.checks import DoctorCheck, examine, judge
from irons_local.doctor.facts import Facts
from irons_local.doctor.surroundings import NEEDED, Surroundings
from irons_local.doctor.way_out import WayOut, look
from irons_local.paths import Paths

WELL = Facts()
IN_DOCKER = Surroundings("docker", filtered=True)
IN_PODMAN = Surroundings("podman", filtered=True)


def _of(facts: Facts, name: str) -> DoctorCheck:
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
        (
            replace(WELL, entering="Operation not permitted", around=IN_DOCKER),
            "user-namespaces",
            "docker run --cap",
        ),
        (
            replace(WELL, proc="Operation not permitted", around=IN_DOCKER),
            "user-namespaces",
            "systempaths=unconfined",
        ),
        (replace(WELL, proc="Operation not permitted", around=IN_PODMAN), "user-namespaces", "unmask=ALL"),
        (
            replace(WELL, calls="setns: Operation not permitted", around=IN_DOCKER),
            "user-namespaces",
            "seccomp=unconfined",
        ),
        (
            replace(WELL, proc="Operation not permitted"),
            "user-namespaces",
            "outside of the chroot or container",
        ),
        (
            replace(WELL, uid=0, around=Surroundings(missing=("SYS_ADMIN",))),
            "container",
            "docker run --cap-add SYS_ADMIN",
        ),
        (
            replace(WELL, uid=0, around=replace(IN_PODMAN, missing=("CHOWN",))),
            "container",
            "podman run --cap-add",
        ),
        (replace(WELL, around=Surroundings(gaining=False)), "container", "without no-new-privileges"),
        (
            replace(WELL, filesystem="overlay", around=IN_DOCKER),
            "state",
            "--volume irons:/home/me/.local/state",
        ),
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
        (
            replace(WELL, way_out=WayOut(routed=False, variable="https_proxy")),
            "internet",
            "upstream_proxy = ",
        ),
        (replace(WELL, way_out=WayOut(proxied=True, trouble="no route to host")), "internet", "[local]"),
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
        replace(WELL, incus_answers=False),
        replace(WELL, incus_answers=True),
        replace(WELL, uid=0, user="root", loop=False),
        replace(WELL, limits="no control group is delegated to irons"),
        _without("mmdebstrap"),
        replace(WELL, way_out=WayOut(variable="https_proxy")),
        replace(WELL, way_out=WayOut(routed=False)),
        replace(WELL, way_out=WayOut(proxied=True, readable="/home/me/config.toml")),
    ],
)
def test_what_is_only_better_to_have_fails_nothing(facts: Facts) -> None:
    """A machine without it gets a line about it and passes."""
    assert all(check.ok for check in judge(facts))


@pytest.mark.parametrize(
    ("limits", "container", "fix"),
    [
        ("no control group is delegated to irons; and more", "", "irons local service install"),
        ("no control group is delegated to irons; and more", "docker", ""),
        ("without the unified hierarchy only root can limit", "", ""),
        ("no controllers are delegated to irons", "", ""),
    ],
)
def test_the_service_is_named_where_it_brings_limits(limits: str, container: str, fix: str) -> None:
    """A fix that changes nothing is not printed: without the unified hierarchy, or in a container, the unit does not help."""
    check = _of(replace(WELL, limits=limits, around=Surroundings(container)), "cgroups")
    assert (check.ok, check.fix) == (True, fix)


@pytest.mark.parametrize(("container", "fix"), [("", "modprobe loop"), ("docker", "")])
def test_loop_devices_limit_a_disk(container: str, fix: str) -> None:
    """Without them the check tells root that `--disk` cannot be had, and how it can; an ordinary user needs none, as it is refused."""
    facts = replace(WELL, uid=0, user="root", loop=False, around=Surroundings(container))
    check = _of(facts, "disk-limits")
    assert (check.ok, check.what, check.fix) == (
        True,
        "/dev/loop-control cannot be opened; only --disk needs it",
        fix,
    )
    assert "--disk is refused" in _of(replace(WELL, loop=False), "disk-limits").what


def test_a_missing_program_is_not_blamed_on_the_kernel() -> None:
    """Where newuidmap is missing, user namespaces aren't reported to be at fault."""
    facts = replace(
        _without("newuidmap"), entering="newuidmap is not installed", overlay=None, proc=None, rules=None
    )
    assert [check.name for check in judge(facts) if not check.ok] == ["newuidmap"]


def test_another_system_is_told_at_once() -> None:
    """What isn't Linux has one check, and it fails."""
    (check,) = judge(replace(WELL, system="Darwin"))
    assert not check.ok


@pytest.fixture
def public() -> Iterator[Path]:
    """A directory that anybody may enter. It is not one of pytest's, which another pytest that starts closes for others."""
    with TemporaryDirectory(prefix="irons-tests-public-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.needs("root")
def test_files_that_the_gateway_cannot_read_are_found(
    tmp_path: Path, public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What only root may read is found, through a link too; what anybody may read, or is missing, is not."""
    room = public / "etc"
    room.mkdir()
    room.chmod(0o755)
    closed, opened, link = room / "closed", room / "open", room / "link"
    closed.touch(0o600)
    opened.touch(0o644)
    link.symlink_to(closed)
    resolving = tuple(str(each) for each in (closed, opened, link, room / "missing"))
    monkeypatch.setattr(facts_of_machine, "RESOLVING", resolving)
    paths = Paths(tmp_path / "state", tmp_path / "runtime")
    assert facts_of_machine.gather(paths).unreadable == (str(closed), str(link))


@pytest.mark.process
def test_this_machine_is_examined_for_real(tmp_path: Path) -> None:
    """Every check gives an answer here, and a state directory that can't be used is explained."""
    paths = Paths(tmp_path / "state", tmp_path / "runtime")
    assert {check.name for check in examine(paths)} == {check.name for check in judge(WELL)}
    (tmp_path / "file").write_text("")
    broken = Paths(tmp_path / "file" / "state", tmp_path / "runtime2")
    found = next(check for check in examine(broken) if check.name == "state")
    assert not found.ok
    assert "file" in found.what


STATUS = "Name:\tirons\nCapEff:\t{held:016x}\nNoNewPrivs:\t{new}\nSeccomp:\t{seccomp}\n"
MARKS = {
    "docker": [(".dockerenv", "")],
    "podman": [("run/.containerenv", 'engine="podman-4.3.1"'), (".dockerenv", "")],
    "lxc": [("proc/1/environ", "PATH=/bin\0container=lxc\0")],
    "systemd-nspawn": [("run/systemd/container", "systemd-nspawn\n")],
    "container": [("proc/1/cgroup", "0::/system.slice/containerd.service/x\n")],
    "": [("proc/1/cgroup", "0::/init.scope\n"), ("proc/1/environ", "PATH=/bin\0")],
}


@pytest.mark.parametrize("engine", sorted(MARKS))
def test_a_container_is_known_by_its_marks(tmp_path: Path, engine: str) -> None:
    """Each engine leaves one; what a name holds next to letters is not repeated, and a machine has none of them."""
    for name, text in MARKS[engine]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert Surroundings.find(0, tmp_path) == Surroundings(engine)
    (tmp_path / "run/systemd").mkdir(parents=True, exist_ok=True)
    (tmp_path / "run/systemd/container").write_text("\x1b[31m")
    assert "\x1b" not in Surroundings.find(0, tmp_path).container


def test_what_confines_a_process_is_read_of_it(tmp_path: Path) -> None:
    """Missing capabilities count for root alone; a filter of system calls and no-new-privileges for everybody."""
    (tmp_path / "proc/self").mkdir(parents=True)
    status = tmp_path / "proc/self/status"
    status.write_text(STATUS.format(held=(1 << 41) - 1 & ~(1 << NEEDED["SYS_ADMIN"]), new=1, seccomp=2))
    assert Surroundings.find(0, tmp_path) == Surroundings(
        filtered=True, gaining=False, missing=("SYS_ADMIN",)
    )
    assert Surroundings.find(1000, tmp_path) == Surroundings(filtered=True, gaining=False)
    status.write_text(STATUS.format(held=(1 << 41) - 1, new=0, seccomp=0))
    assert Surroundings.find(0, tmp_path) == Surroundings()
    assert not Surroundings.find(0, tmp_path).confine


def test_on_a_machine_that_works_a_container_is_only_named() -> None:
    """The marks of a container alone, as on a machine that was made of one, are no lack."""
    check = _of(replace(WELL, uid=0, around=Surroundings("docker")), "container")
    assert check == DoctorCheck("container", True, "in a container (docker)")


@pytest.mark.needs("root", "user-namespaces", "networks", "crun")
@pytest.mark.parametrize(
    "call", ["setns", "umount2", "sethostname", "pivot_root", "clone", "keyctl", "unshare", "mount"]
)
def test_a_system_call_that_a_container_refuses_is_found(tmp_path: Path, call: str) -> None:
    """Namespaces can be made there, and sandboxes could not be started; `user-namespaces` says which call it is."""
    done = Yard(tmp_path).irons(Container(refused=(call,)), "irons doctor -o json")
    check = next(row for row in json.loads(done.stdout) if row["name"] == "user-namespaces")
    assert not check["ok"]
    assert "Operation not permitted" in check["what"]
    assert call in check["what"] or call in {"unshare", "mount"}
    assert "seccomp=unconfined" in check["fix"]


@pytest.mark.parametrize(
    ("lines", "lacking"),
    [
        ("0 0 4294967295\n", False),
        ("", False),
        ("0 1000 1\n1 100000 65536\n", True),
        ("0 0 1879048193\n", True),
    ],
)
def test_root_of_a_rootless_container_has_no_ids_to_give(
    tmp_path: Path, lines: str, *, lacking: bool
) -> None:
    """Its user namespace lacks the range that root takes sandboxes' ids from."""
    (tmp_path / "uid_map").write_text("0 0 4294967295\n")
    (tmp_path / "gid_map").write_text(lines)
    why = facts_of_machine._unmapped(tmp_path)
    assert bool(why) == lacking
    check = _of(replace(WELL, uid=0, ids=why), "subordinate-ids")
    assert check.ok != lacking
    assert ("rootless" in check.fix) == lacking


def test_the_way_out_is_looked_at(tmp_path: Path) -> None:
    """A proxy that takes connections is well; one that does not, or a setting that is invalid, is named without its secret."""
    settings = tmp_path / "config.toml"
    assert look(settings, {"https_proxy": "http://x:1"}).variable == "https_proxy"
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        settings.write_text(f'[local]\nupstream_proxy = "http://me:secret@127.0.0.1:{port}"\n')
        settings.chmod(0o644)
        found = look(settings, {})
        assert (found.proxied, found.trouble, found.readable) == (True, "", str(settings))
    settings.chmod(0o600)
    with socket.socket() as silent:
        # Bound, so that no one else can listen there.
        silent.bind(("127.0.0.1", 0))
        settings.write_text(
            f'[local]\nupstream_proxy = "http://me:secret@127.0.0.1:{silent.getsockname()[1]}"\n'
        )
        found = look(settings, {})
        assert (found.trouble, found.readable) == ("Connection refused", "")
    settings.write_text('[local]\nupstream_proxy = "http://me:secret@127.0.0.1"\n')
    assert "port" in look(settings, {}).trouble
    assert "secret" not in repr(look(settings, {}))
