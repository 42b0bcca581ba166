"""The engine's parts that need no machine: filter, configuration, limits, keys."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
import subprocess
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pytest

from irons_local.bundle import boot_steps, entrypoint, oci, seccomp, sshd, sysview
from irons_local.bundle.image_config import ImageConfig
from irons_local.bundle.machine import Machine
from irons_local.engines.namespace import boot, launch
from irons_local.engines.protocol import Spec
from irons_local.errors import CellError, EngineError
from irons_local.images.kit.store import MadeKit
from irons_local.limits import Limits
from irons_local.linux.cgroup import Groups
from irons_local.linux.idmap import Extent, IdMapError, inner_extent, is_machines_root, lines, outer_map
from irons_local.linux.namespaces import started
from irons_local.linux.processes import Process, is_alive, open_process
from irons_local.linux.remove_tree import remove_tree

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIIYqNsYamEJIfnCozjmepI0oBf+gCfs1BF66xsISdc6e me@here\n"


def _answer(profile: dict[str, Any], call: str, family: int, protocol: int = 0) -> int:
    """What a filter answers to a call with these arguments, as registers hold them: an errno, or 0."""
    for rule in profile["syscalls"]:
        if call in rule["names"] and all(
            _holds(each, (family, 1, protocol)) for each in rule.get("args", [])
        ):
            return int(rule["errnoRet"])
    return 0


def _holds(wanted: dict[str, Any], registers: tuple[int, ...]) -> bool:
    value, given = wanted["value"], registers[wanted["index"]]
    match wanted["op"]:
        case "SCMP_CMP_EQ":
            return bool(given == value)
        case "SCMP_CMP_GT":
            return bool(given > value)
        case "SCMP_CMP_MASKED_EQ":
            return bool(given & value == wanted["valueTwo"])
        case other:
            raise AssertionError(other)


@pytest.mark.parametrize("family", range(64))
def test_only_families_of_a_network_namespace_are_let_through(family: int) -> None:
    """Sockets of UNIX, INET, INET6 and NETLINK can be made, those of any other family can't."""
    expected = 0 if family in (1, 2, 10, 16) else errno.EAFNOSUPPORT
    assert _answer(seccomp.profile("x86_64"), "socket", family) == expected
    assert _answer(seccomp.profile("x86_64"), "socketpair", family) == expected


@pytest.mark.parametrize("above", [0, 1 << 32, 0xFFFF_FFFF << 32])
def test_a_bit_above_an_int_is_no_way_round(above: int) -> None:
    """The kernel looks at the lower half of the register: no matter what stands above, packet filters and IPsec stay shut."""
    profile = seccomp.profile("x86_64")
    for protocol in (6, 12):
        assert _answer(profile, "socket", 16, protocol + above) == errno.EPROTONOSUPPORT
    for protocol in (0, 4, 9, 15, 16):
        assert _answer(profile, "socket", 16, protocol + above) == 0
    assert _answer(profile, "socket", 40 + above) == errno.EAFNOSUPPORT


def test_an_unknown_architecture_is_filtered_all_the_same() -> None:
    """The filter holds on a processor whose other architectures aren't known."""
    assert "architectures" not in seccomp.profile("loongarch64")
    assert _answer(seccomp.profile("loongarch64"), "socket", 40) == errno.EAFNOSUPPORT
    assert _answer(seccomp.profile("loongarch64"), "bpf", 0) == errno.EPERM


def test_a_sandboxs_root_is_nobodys_own_user() -> None:
    """The inner namespace begins at a subordinate id, and its capabilities don't reach the network above it."""
    config = oci.config(
        rootfs="/r", hostname="box", args=["/init"], settings="/s", machine="x86_64", cgroup_namespace=True
    )
    assert config["linux"]["uidMappings"] == [{"containerID": 0, "hostID": 1, "size": 65535}]
    assert config["linux"]["uidMappings"] == config["linux"]["gidMappings"]
    assert not [kind for kind in config["linux"]["namespaces"] if kind["type"] == "network"]
    assert "CAP_SYS_ADMIN" not in json.dumps(config)
    assert not [mount for mount in config["mounts"] if mount["destination"].startswith("/sys")]


@pytest.mark.parametrize("hidden", [True, False])
def test_a_sandbox_has_namespaces_of_its_own(*, hidden: bool) -> None:
    """All of them but the network, which is the cell's; control groups are hidden where that can be."""
    config = oci.config(
        rootfs="/r", hostname="box", args=["/init"], settings="/s", machine="x86_64", cgroup_namespace=hidden
    )
    kinds = {each["type"] for each in config["linux"]["namespaces"]}
    assert kinds == {"pid", "mount", "ipc", "uts", "user"} | ({"cgroup"} if hidden else set())


def test_ids_of_root_are_a_private_range(tmp_path: Path) -> None:
    """As root not even the outer namespace's root is the machine's."""
    found = outer_map(0, tmp_path / "none", tmp_path / "none")
    assert found.uids[0].outside > 1 << 30
    assert found.host_uid(1) == found.host_uid(0) + 1
    with pytest.raises(KeyError):
        found.host_gid(65536)


@pytest.mark.needs("root")
@pytest.mark.parametrize(
    ("uid_map", "permitted", "is_root"),
    [
        ("0 0 4294967295", 0x1FFFFFFFFFF, True),
        ("0 100000 65536", 0x1FFFFFFFFFF, False),
        ("0 0 4294967295", 0xA80425FB, False),
        ("0 0 4294967295", 0xA82425FB, True),
    ],
    ids=["machine", "rootless container", "container", "container with SYS_ADMIN"],
)
def test_only_the_machines_root_mounts_with_redirects(
    tmp_path: Path, uid_map: str, permitted: int, *, is_root: bool
) -> None:
    """Root of a user namespace, or without a capability that it takes, mounts as an ordinary user does."""
    (tmp_path / "uid_map").write_text(f"{uid_map}\n")
    (tmp_path / "status").write_text(f"Name:\tx\nCapPrm:\t{permitted:016x}\n")
    assert is_machines_root(tmp_path) is is_root


def test_ids_of_a_user_are_subordinate(tmp_path: Path) -> None:
    """The user's own id is the outer namespace's root, and the rest are the first range that is large enough."""
    file = tmp_path / "subuid"
    file.write_text("other:1:2\nnobody:100:5\n# comment\nnobody:200000:65536\nnobody:900000:65536\n")
    found = outer_map(65534, file, file)
    assert found.uids == (Extent(0, 65534, 1), Extent(1, 200000, 65535))
    assert lines(found.gids).splitlines()[1] == "1 200000 65535"
    assert inner_extent().outside == 1


def test_too_few_ids_are_said(tmp_path: Path) -> None:
    """For a user without a range the error names the file that lacks it."""
    file = tmp_path / "subuid"
    file.write_text("nobody:100:5\n")
    with pytest.raises(IdMapError, match="subuid"):
        outer_map(65534, file, file)
    with pytest.raises(IdMapError, match="cannot be read"):
        outer_map(65534, tmp_path / "none", file)


def test_public_keys_are_taken_as_files_have_them() -> None:
    """Comments and empty lines of a public key file don't matter, and several keys are several."""
    assert sshd.authorized(f"# mine\n\n{KEY}\n{KEY}") == KEY * 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n# only a comment\n",
        "not a key",
        "-----BEGIN OPENSSH PRIVATE KEY-----\nabc\n",
        'command="x" ' + KEY,
    ],
)
def test_what_is_no_public_key_is_refused(text: str) -> None:
    """A private key, options or nonsense are refused as bad input."""
    with pytest.raises(EngineError) as caught:
        sshd.authorized(text)
    assert caught.value.code == "input"


def test_without_tini_the_ssh_server_is_process_one() -> None:
    """An image needs no init of its own."""
    first = ["/bin/sh", "/run/irons/init"]
    assert sshd.arguments("") == first
    assert sshd.arguments("/usr/bin/tini") == ["/usr/bin/tini", "--", *first]
    script = boot_steps.files(sshd.server("/usr/sbin/sshd"), ())["init"]
    assert script.splitlines()[-1].startswith("exec /usr/sbin/sshd -D ")


@pytest.mark.process
def test_output_of_the_boot_is_kept_whatever_path_an_image_names(tmp_path: Path) -> None:
    """The image's variables are for the steps; what waits for the server and keeps the output does without them."""
    (tmp_path / "log").mkdir()
    (tmp_path / "tcp").write_text(" 0: 00000000:0016 00000000:0000 0A 00000000:00000000\n")
    (tmp_path / "image").write_text("PATH=/nowhere FROM=image\nexport PATH FROM\n")
    step = boot_steps.BootStep(10, "first", 'echo "$FROM $PATH"; exit 3\n')
    for name, text in boot_steps.files("true", [step], "/bin/sh").items():
        told = text.replace("/run/irons", str(tmp_path)).replace("/proc/net/tcp", str(tmp_path / "tcp"))
        (tmp_path / name).write_text(told)
    subprocess.run(["/bin/sh", tmp_path / "boot", "/bin/sh"], stderr=subprocess.PIPE, check=True, timeout=60)
    first, second = (tmp_path / "log/output").read_text().splitlines()
    assert first.startswith("image /nowhere")
    assert second == "irons: boot step first ended with exit code 3"
    assert (tmp_path / "log/exit").read_text() == "3\n"


def test_a_process_is_named_by_its_start_too() -> None:
    """A number that another process has now is not taken for the process that was meant."""
    begun = started(os.getpid())
    assert begun is not None
    assert is_alive(Process(os.getpid(), begun))
    assert not is_alive(Process(os.getpid(), begun - 1))
    assert open_process(Process(2**22 - 1, 1)) is None


def test_a_machine_is_read_as_it_was_written(tmp_path: Path) -> None:
    """What is recorded of a sandbox is read back; a damaged record is refused as damaged."""
    spec = Spec("sb_0", "box", KEY, limits=Limits(1.5, 2, None, 7), entrypoint=True)
    machine = Machine.of(spec, "img_1", "debian", KEY)
    machine.write(tmp_path)
    assert Machine.read(tmp_path) == machine
    (tmp_path / "machine.json").write_text('{"id": 1}')
    with pytest.raises(EngineError) as caught:
        Machine.read(tmp_path)
    assert caught.value.code == "state"


@pytest.mark.process
@pytest.mark.parametrize("kit", [True, False])
def test_an_entrypoint_is_the_last_step(kit: bool) -> None:
    """Its words stay what the image says, no matter what they are; the user and the group are the image's."""
    told = {"Entrypoint": ["/app", "a b"], "Cmd": ["$(a)", ""], "User": "web:staff"}
    step = entrypoint.step(ImageConfig.of({"config": told}), kit=kit)
    assert max(boot_steps.STEPS).order < step.order
    assert " -- /app 'a b' '$(a)' ''\n" in step.script
    assert "irons_asked=web\nirons_group=staff\n" in step.script
    assert ("irons_kit=/run/irons/kit/\n" in step.script) == kit
    assert subprocess.run(["sh", "-n"], input=step.script, text=True, check=False).returncode == 0
    with pytest.raises(EngineError, match="names no entrypoint"):
        entrypoint.step(ImageConfig.of({"config": {"User": "web"}}), kit=kit)


def test_a_server_is_told_where_the_programs_are_that_it_starts() -> None:
    """A kit that has them names them in the configuration; one without them, as before OpenSSH 9.8, does not."""
    programs = {"sshd": "", "sshd-session": "SshdSessionPath", "sshd-auth": "SshdAuthPath"}
    kit = MadeKit("kit_0", "img_0", 0, tuple(programs), Path("/nowhere"))
    lines = sshd.configuration(kit.shell, kit.helpers).splitlines()
    for name, option in programs.items():
        assert (f"{option} /run/irons/kit/{name}" in lines) == bool(option)
    assert "Path" not in sshd.configuration(kit.shell, replace(kit, names=("sshd",)).helpers)


def test_a_run_of_another_boot_is_not_believed(tmp_path: Path) -> None:
    """Process 1 is known only to the boot of the machine that started it."""
    begun = started(os.getpid())
    note = json.dumps({"pid": os.getpid(), "started": begun})
    (tmp_path / "run-00000000-another-boot").write_text(note)
    assert Machine.running(tmp_path) is None
    Machine.run_file(tmp_path).write_text(note)
    assert Machine.running(tmp_path) == Process(os.getpid(), begun or 0)
    Machine.forget_runs(tmp_path)
    assert list(tmp_path.iterdir()) == []


def _v2(
    root: Path, own: str = "/user.slice/irons.service", controllers: str = "cpuset cpu io memory pids"
) -> Path:
    base = root / own.strip("/")
    base.mkdir(parents=True)
    for place in (root, base):
        (place / "cgroup.controllers").write_text(controllers)
        (place / "cgroup.subtree_control").write_text("")
        (place / "cgroup.procs").write_text("")
    (root / "own").write_text(f"0::{own}\n")
    return base


def test_limits_go_into_a_delegated_group(tmp_path: Path) -> None:
    """A unit of irons with a delegated v2 group limits memory, processors and processes (a stand-in directory)."""
    base = _v2(tmp_path)
    groups = Groups.find(tmp_path, tmp_path / "own", uid=1000)
    assert groups.kind == "v2"
    (base / "sb_1").mkdir()
    (base / "sb_1" / "cgroup.procs").touch()
    with groups.joined("sb_1", Limits(cpus=1.5, memory=300 << 20, processes=64)) as descriptors:
        assert len(descriptors) == 1
    assert (base / "sb_1" / "memory.max").read_text() == str(300 << 20)
    assert (base / "sb_1" / "cpu.max").read_text() == "150000 100000"
    assert (base / "sb_1" / "pids.max").read_text() == "64"
    assert "not enforced" not in " ".join(groups.facts(Limits(cpus=1.5, memory=1)).values())


def test_kills_for_memory_are_counted(tmp_path: Path) -> None:
    """What `status` and `exec` report of the memory limit: how often the kernel killed for it, in both hierarchies."""
    base = _v2(tmp_path)
    groups = Groups.find(tmp_path, tmp_path / "own", uid=1000)
    (base / "sb_1").mkdir()
    assert "oom_kills" not in groups.used("sb_1")
    (base / "sb_1" / "memory.events").write_text("low 0\nmax 7\noom 3\noom_kill 2\n")
    assert groups.used("sb_1")["oom_kills"] == "2"
    older = Groups("v1", {"memory": tmp_path})
    (tmp_path / "sb_1").mkdir()
    (tmp_path / "sb_1" / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n")
    assert older.used("sb_1")["oom_kills"] == "5"


@pytest.mark.parametrize(
    ("kills", "limit", "said"),
    [
        (
            1,
            128 << 20,
            "process 1 ended after the kernel had killed a process for the memory limit of 128 MiB",
        ),
        (
            12,
            1 << 30,
            "process 1 ended after the kernel had killed 12 processes for the memory limit of 1 GiB",
        ),
        (0, 1 << 30, ""),
        (3, None, ""),
    ],
)
def test_why_a_sandbox_ended(tmp_path: Path, kills: int, limit: int | None, said: str) -> None:
    """A sandbox that ended by itself has the kernel's kills as the reason, where it has a limit and there were any."""
    groups = Groups("v2", {"memory": tmp_path})
    assert groups.why_ended("sb_1", Limits(memory=limit)) == ""
    (tmp_path / "sb_1").mkdir()
    (tmp_path / "sb_1" / "memory.events").write_text(f"oom 9\noom_kill {kills}\n")
    assert groups.why_ended("sb_1", Limits(memory=limit)) == said


def test_a_terminals_group_is_left_alone(tmp_path: Path) -> None:
    """Without a unit of its own an ordinary user's daemon limits nothing by groups, and `status` shows it."""
    _v2(tmp_path, "/user.slice/session-1.scope")
    groups = Groups.find(tmp_path, tmp_path / "own", uid=1000)
    assert groups.kind == "none"
    facts = groups.facts(Limits(cpus=2.0, memory=1 << 30, disk=5))
    assert (facts["cpus"], facts["memory"], facts["disk"]) == ("2", str(1 << 30), "5")
    assert "not enforced" in facts["memory_note"]
    assert "irons local service install" in facts["cpus_note"]
    assert facts["processes"] == "4096"


def test_a_controller_that_is_missing_is_said(tmp_path: Path) -> None:
    """What a delegation leaves out is not enforced."""
    _v2(tmp_path, controllers="pids")
    facts = Groups.find(tmp_path, tmp_path / "own", uid=1000).facts(Limits(memory=1))
    assert "not enforced" in facts["memory_note"]


def test_the_older_hierarchy_is_roots(tmp_path: Path) -> None:
    """With v1 only root can limit."""
    for name in ("memory", "pids", "cpu,cpuacct"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "cgroup.procs").touch()
    assert Groups.find(tmp_path, tmp_path / "own", uid=1000).kind == "none"
    groups = Groups.find(tmp_path, tmp_path / "own", uid=0)
    assert groups.kind == "v1"
    assert set(groups.bases) == {"memory", "pids", "cpu"}
    assert Groups.find(tmp_path / "memory", tmp_path / "own", uid=0).kind == "none"


@pytest.mark.process
def test_removal_goes_as_deep_as_it_must(tmp_path: Path) -> None:
    """A tree deeper than any path can be is removed, twice at the same time, and links in it lead nowhere."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("kept")
    top = tmp_path / "top"
    top.mkdir()
    here = os.open(top, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("deeper", dir_fd=here)
        os.symlink(outside, "link", dir_fd=here)
        inner = os.open("deeper", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)

    async def twice() -> None:
        await asyncio.gather(remove_tree(top), remove_tree(top))

    try:
        asyncio.run(twice())
        assert [each.name for each in tmp_path.iterdir()] == ["outside"]
        assert (outside / "kept").exists()
    finally:
        # Left behind, it would be too deep for whoever cleans up later.
        subprocess.run(["rm", "-rf", str(top)], check=True)


@pytest.mark.parametrize("owned", [True, False])
def test_only_what_others_own_takes_a_namespace_to_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, owned: bool
) -> None:
    """An ordinary user's own files go on a machine that lets no one make a namespace; a sandbox's need one."""
    top = tmp_path / "top"
    (top / "inner").mkdir(parents=True)
    (top / "inner/file").touch()
    asked: list[str] = []

    async def call(_identity: str, function: str, *_: Any, **__: Any) -> None:
        asked.append(function)
        raise EngineError("namespaces", "user namespaces are switched off")

    def refuse(_: int) -> None:
        raise PermissionError(errno.EACCES, "another's")

    monkeypatch.setattr("irons_local.linux.remove_tree.call", call)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    if owned:
        asyncio.run(remove_tree(top))
        assert (asked, top.exists()) == ([], False)
        return
    monkeypatch.setattr("irons_local.linux.remove_tree.empty", refuse)
    with pytest.raises(EngineError, match="switched off"):
        asyncio.run(remove_tree(top))
    assert asked == ["irons_local.linux.remove_tree:empty_inside"]


def test_only_limits_that_are_enforced_are_shown() -> None:
    """Of a controller that is missing there is no file, and no processor less."""
    limits = Limits(cpus=1.5, memory=1 << 30, processes=100)
    assert sysview.limit_files(limits, ()) == {}
    assert sysview.processors(limits, ("memory",)) is None
    assert sysview.limit_files(Limits(processes=None), ("cpu", "memory", "pids")) == {}
    assert sysview.processors(limits, ("cpu",)) == 2
    files = sysview.limit_files(limits, ("cpu", "memory", "pids"))
    assert files["fs/cgroup/cpu.max"] == "150000 100000"
    assert files["fs/cgroup/cpu/cpu.cfs_quota_us"] == "150000"
    assert files["fs/cgroup/memory/memory.limit_in_bytes"] == str(1 << 30)
    assert files["fs/cgroup/pids.max"] == "100"


def test_the_documentation_lists_the_files_of_sys() -> None:
    """docs/security.md names every file of the view."""
    text = (Path(__file__).parents[2] / "docs/security.md").read_text()
    for path in sysview.limit_files(Limits(1.0, 1 << 30, None, 100), ("cpu", "memory", "pids")):
        assert path.removeprefix("fs/cgroup/") in text


@pytest.mark.parametrize(
    ("numbers", "text"), [({0}, "0"), ({0, 1, 2}, "0-2"), ({1, 3, 4, 9}, "1,3-4,9"), (set(), "")]
)
def test_processors_are_listed_as_the_kernel_does(numbers: set[int], text: str) -> None:
    """Runs are ranges."""
    assert sysview.ranges(numbers) == text


class _BusyCells:
    """Cells of a keeper that is too busy at first: then a connection to a server that says who it is."""

    def __init__(self) -> None:
        self.asked = 0

    async def connect(self, cell: str, address: str, port: int, *, within: float) -> socket.socket:
        del cell, address, port, within
        self.asked += 1
        if self.asked == 1:
            raise CellError("the keeper does not answer")
        if self.asked == 2:
            raise TimeoutError(errno.ETIMEDOUT, "it was not done within 3 s")
        near, far = socket.socketpair()
        near.setblocking(False)
        far.sendall(b"SSH-2.0-x\r\n")
        far.close()
        return near


def test_a_keeper_that_is_busy_fails_no_start() -> None:
    """While the SSH server is waited for, a connection that took the keeper too long is tried again."""
    cells, nothing = _BusyCells(), os.open(os.devnull, os.O_RDONLY)
    try:
        asyncio.run(launch.greeted(cells, "sb_1", Process(os.getpid(), started(os.getpid())), nothing))  # type: ignore[arg-type]
    finally:
        os.close(nothing)
    assert cells.asked == 3


@pytest.mark.parametrize("module", [launch.AMEND, launch.ANNOUNCE])
def test_a_program_that_enters_a_running_sandbox_is_a_module(module: str) -> None:
    """The name of the program is text, which no type checker follows when a module moves."""
    assert find_spec(module) is not None


def test_a_start_on_a_full_disk_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The boot's answer, and what it notes for a control plane that comes later, are a line for people without a number."""

    def full(order: boot.BootOrder) -> boot.BootAnswer:
        raise OSError(errno.ENOSPC, "No space left on device", order["cell"])

    monkeypatch.setattr(boot, "boot", full)
    read, write = os.pipe()
    inherited = boot.Inherited(-1, -1, -1, [], -1, write)
    answer = boot.carry_out(cast("boot.BootOrder", {"cell": "sb_1", "inherited": inherited}))
    os.close(write)
    with os.fdopen(read) as noted:
        assert answer == json.load(noted) == {"error": "the disk is full; free some space"}
