"""What is known of this machine, for `doctor` to judge: gathered here, given as plain values in its tests."""

from __future__ import annotations

import asyncio
import os
import platform
import pwd
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from irons.settings.settings import config_path
from irons_local.config.authorities import Authorities, carried
from irons_local.config.incus import incus_socket, joined_directory
from irons_local.doctor.surroundings import Surroundings
from irons_local.doctor.way_out import WayOut, look
from irons_local.engines.incus.reach.joined import Joined
from irons_local.engines.vm import kvm, qemu
from irons_local.errors import EngineError
from irons_local.forkserver.confine import GATEWAY_ID
from irons_local.images.sources.debian import host_release
from irons_local.linux import disk_images
from irons_local.linux.cgroup import Groups
from irons_local.linux.idmap import INNER_COUNT, PRIVATE_BASE, PRIVATE_COUNT, IdMapError, outer_map
from irons_local.linux.programs import search_path
from irons_local.linux.userns_call import call
from irons_local.paths import Paths, PathsError

PROGRAMS = (
    "crun",
    "nft",
    "newuidmap",
    "newgidmap",
    "mmdebstrap",
    "skopeo",
    "ssh",
    "ssh-keygen",
    "mkfs.ext4",
    qemu.PROGRAM,
)
SYSCTLS = (
    "kernel/unprivileged_userns_clone",
    "kernel/apparmor_restrict_unprivileged_userns",
    "user/max_user_namespaces",
)
RESOLVING = ("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf")
"""What the gateway reads to resolve names."""
MANAGERS = ("apt-get", "dnf", "zypper", "pacman", "apk")
_TRIAL = "irons_local.doctor.probe:trial"
_FIRST_SUBORDINATE = 100_000
_ACCEPTS_WITHIN = 2.0


@dataclass(frozen=True, slots=True)
class Facts:
    """This machine, as it matters to the local backend.

    Attributes:
        system: `uname -s`.
        release: `uname -r`.
        uid, user: whose daemon it is about.
        distribution: its name for people.
        manager: the package manager, one of `MANAGERS`, or "".
        programs: path of each of `PROGRAMS`, "" where it is not installed.
        sysctls: value of each of `SYSCTLS`, "" where the kernel has no such setting.
        ids: why there are not enough subordinate ids, or "".
        free_ids: start of a range of them that no one has.
        entering: why no namespace with such ids could be made, or "".
        calls, overlay, proc, rules: why this cannot be done in it, or ""; None where it was not tried.
        tun: /dev/net/tun can be opened.
        kvm: why KVM runs no guest, or ""; None where there is no QEMU to try it.
        incus: where an Incus is to be, for the engine that uses one.
        incus_answers: one takes connections there.
        cluster: where an Incus cluster is that this machine has joined, or "".
        cluster_until: when the certificate ends by which it has.
        cluster_problem: why what it is reached by cannot be used, or "".
        loop: loop devices can be asked for.
        limits: why control groups limit nothing, or "".
        state: the state directory.
        state_problem: why it cannot be used, or "".
        filesystem: type of the file system it is on.
        free: bytes free on it.
        images: how many images there are.
        around: the container, if any, that this process is in.
        unreadable: those of `RESOLVING` that the gateway cannot read.
        way_out: how it reaches the internet.
        authorities: the certificate authorities that are carried into sandboxes.
    """

    system: str = "Linux"
    release: str = "6.1.0"
    uid: int = 1000
    user: str = "me"
    distribution: str = "Debian GNU/Linux"
    manager: str = "apt-get"
    programs: dict[str, str] = field(default_factory=lambda: {name: f"/usr/bin/{name}" for name in PROGRAMS})
    sysctls: dict[str, str] = field(default_factory=dict)
    ids: str = ""
    free_ids: int = _FIRST_SUBORDINATE
    entering: str = ""
    calls: str | None = ""
    overlay: str | None = ""
    proc: str | None = ""
    rules: str | None = ""
    tun: bool = True
    kvm: str | None = ""
    incus: Path = Path("/var/lib/incus/unix.socket")
    incus_answers: bool = True
    cluster: str = ""
    cluster_until: str = ""
    cluster_problem: str = ""
    loop: bool = True
    limits: str = ""
    state: Path = Path("/home/me/.local/state/irons")
    state_problem: str = ""
    filesystem: str = "ext4"
    free: int = 50 << 30
    images: int = 1
    unreadable: tuple[str, ...] = ()
    around: Surroundings = field(default_factory=Surroundings)
    way_out: WayOut = field(default_factory=WayOut)
    authorities: Authorities = field(default_factory=Authorities)


def gather(paths: Paths) -> Facts:
    """The facts of this machine; takes a fraction of a second and changes nothing but to make the directories."""
    uid = os.geteuid()
    programs = {name: shutil.which(name, path=search_path()) or "" for name in PROGRAMS}
    problem = _state_problem(paths)
    there = _existing(paths.local)
    try:
        outer_map()
        ids = "" if uid else _unmapped(Path("/proc/self"))
    except IdMapError as error:
        ids = str(error)
    incus = incus_socket(config_path(os.environ))
    tried, entering = _try(programs["nft"]) if not ids else ({}, "")
    return Facts(
        system=platform.system(),
        release=platform.release(),
        uid=uid,
        user=_name_of(uid),
        distribution=host_release().get("PRETTY_NAME", "this system"),
        manager=next((name for name in MANAGERS if shutil.which(name, path=search_path())), ""),
        programs=programs,
        sysctls={name: _text(Path("/proc/sys") / name) for name in SYSCTLS},
        ids=ids,
        free_ids=_free_ids(Path("/etc/subuid"), Path("/etc/subgid")),
        entering=entering,
        calls=tried.get("calls"),
        overlay=tried.get("overlay"),
        proc=tried.get("proc"),
        rules=tried.get("rules"),
        tun=os.access("/dev/net/tun", os.R_OK | os.W_OK),
        kvm=_kvm(programs[qemu.PROGRAM]),
        incus=incus,
        incus_answers=_accepts(incus),
        **_cluster(paths),
        loop=disk_images.has_loop_devices(),
        limits=Groups.find().why_not,
        state=paths.local,
        state_problem=problem,
        filesystem=_filesystem(there),
        free=shutil.disk_usage(there).free,
        images=sum(1 for _ in paths.images.glob("img_*")),
        unreadable=tuple(path for path in RESOLVING if not _gateway_reads(path, uid)),
        around=Surroundings.find(uid),
        way_out=look(config_path(os.environ), os.environ),
        authorities=carried(config_path(os.environ)),
    )


def _cluster(paths: Paths) -> dict[str, str]:
    """The cluster that was joined, as `Facts` has it."""
    try:
        joined = Joined.read(joined_directory(paths.local))
        if joined is None:
            return {}
        joined.context()
    except EngineError as error:
        return {"cluster_problem": error.message}
    return {"cluster": joined.urls[0], "cluster_until": joined.until}


def _accepts(path: Path) -> bool:
    """Whether something takes connections at a unix socket."""
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(_ACCEPTS_WITHIN)
        try:
            asking.connect(str(path))
        except OSError:
            return False
        return True


def _kvm(program: str) -> str | None:
    return asyncio.run(kvm.probe(program)).why if program else None


def _gateway_reads(path: str, uid: int) -> bool:
    """Whether the gateway, which as root has a user of its own, can read a file; a missing one hides nothing."""
    if not os.path.exists(path):  # noqa: PTH110 (follows the link that resolv.conf often is)
        return True
    if uid != 0:
        return os.access(path, os.R_OK)
    try:
        # The program asks the kernel as that user, so that access lists and directories count too.
        done = subprocess.run(
            ["test", "-r", path], user=GATEWAY_ID, group=GATEWAY_ID, extra_groups=(), check=False
        )
    except OSError:
        return True
    return done.returncode == 0


def _unmapped(process: Path) -> str:
    """Why root has no ids to give to sandboxes: its user namespace does not have them; "" where it does, or none can be read."""
    for name in ("uid_map", "gid_map"):
        ranges = [tuple(map(int, line.split())) for line in _text(process / name).splitlines()]
        end = PRIVATE_BASE + PRIVATE_COUNT
        if ranges and not any(first <= PRIVATE_BASE and end <= first + size for first, _, size in ranges):
            return f"this root has no ids {PRIVATE_BASE}-{end - 1} to give to sandboxes, as in a rootless container"
    return ""


def _try(nft: str) -> tuple[dict[str, str], str]:
    """Make namespaces and try what is done in them; what was found, and why they could not be made."""
    try:
        return asyncio.run(call("a", _TRIAL, {"nft": nft})), ""
    except EngineError as error:
        return {}, error.message


def _state_problem(paths: Paths) -> str:
    try:
        paths.create()
    except (PathsError, OSError) as error:
        return str(error)
    if os.statvfs(paths.local).f_flag & os.ST_RDONLY:
        return f"{paths.local} is on a read-only file system"
    return "" if os.access(paths.local, os.W_OK | os.X_OK) else f"{paths.local} is not writable"


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


def _name_of(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _free_ids(*files: Path) -> int:
    """The first start, in steps of 65536, that lies above every range given away."""
    end = _FIRST_SUBORDINATE
    for path in files:
        for line in _text(path).splitlines():
            fields = line.split(":")
            if len(fields) == 3 and fields[1].isdecimal() and fields[2].isdecimal():
                end = max(end, int(fields[1]) + int(fields[2]))
    count = INNER_COUNT + 1
    return _FIRST_SUBORDINATE + -(-(end - _FIRST_SUBORDINATE) // count) * count


def _filesystem(path: Path) -> str:
    """The type of the file system a path is on (proc_pid_mountinfo(5))."""
    device = path.stat().st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    kind = ""
    for line in _text(Path("/proc/self/mountinfo")).splitlines():
        before, _, after = line.partition(" - ")
        if before.split()[2] == wanted and after:
            kind = after.split()[0]
    return kind
