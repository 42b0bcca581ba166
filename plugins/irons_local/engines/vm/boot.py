"""Enters a cell and starts QEMU there, confined as a namespace sandbox is; run as a program of its own, once per start.

QEMU's root file system is the host's `/usr`, read-only, and the machine's own files. It is process 1 of its namespaces, with
a subordinate id and without capabilities, so that whoever breaks out of the guest is in a sandbox. What was started, or why
nothing was, is also written to the descriptor `note`, for a control plane that was restarted in between.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import resource
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from irons_local.engines.vm import qemu
from irons_local.ipc.framing import line_of
from irons_local.linux import namespaces, syscalls

STAGE = Path("/run/irons")
"""Where all of it is mounted: in the cell's mount namespace no one else needs what the host has in /run."""

ROOTFS = STAGE / "bundle" / "rootfs"
FILES_STAGE = STAGE / "files"
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
_SANDBOX_ROOT = 1
"""Id, in namespace A, of the user that QEMU runs as."""
_NO_PROGRAM = (
    syscalls.MS_BIND | syscalls.MS_REMOUNT | syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
)
_LINKS = ("bin", "lib", "lib32", "lib64", "libx32", "sbin")
_PLACES = ("dev", "etc", "proc", "run", "tmp", "usr", qemu.FILES.lstrip("/"))


class VmOrder(TypedDict):
    """What to start, as it travels in JSON.

    Attributes:
        user, net, mount: descriptors of the cell's namespaces.
        cgroups: descriptors of the `cgroup.procs` to join.
        console: the descriptor that becomes QEMU's standard output and error.
        note: the descriptor that the answer is also written to.
        monitors: descriptors of the sockets that QEMU listens on.
        owner: ids, on the machine, of the user that QEMU runs as.
        files: paths of the machine's files, by name; `disk` is the one that QEMU writes.
        device: path of KVM's device; "" where it is not used.
        threads: how many processes and threads there may be at once.
        settings: the disk with the guest's settings, in base64.
        config: the OCI configuration.
        crun: path of the runtime.
        cell: the container's name.
    """

    user: int
    net: int
    mount: int
    cgroups: list[int]
    console: int
    note: int
    monitors: list[int]
    owner: list[int]
    files: dict[str, str]
    device: str
    threads: int
    settings: str
    config: dict[str, Any]
    crun: str
    cell: str


def main() -> None:
    """Carry out the order on standard input, note the answer, and write it to standard output."""
    order: VmOrder = json.load(sys.stdin)
    answer: dict[str, Any]
    try:
        answer = boot(order)
    except OSError as error:
        answer = {"error": line_of(error)}
    os.write(order["note"], json.dumps(answer).encode())
    sys.stdout.write(json.dumps(answer))


def boot(order: VmOrder) -> dict[str, Any]:
    """Start QEMU; gives its process id and start time.

    Raises:
        OSError: a step failed; its text says which.
    """
    given = (order["user"], order["net"], order["mount"], order["console"], order["note"])
    for descriptor in (*given, *order["cgroups"], *order["monitors"]):
        os.set_inheritable(descriptor, False)
    for group in order["cgroups"]:
        os.write(group, b"0")
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    os.umask(0o022)
    opened = _enter(order)
    namespaces.mount("none", "/", flags=namespaces.MS_REC | syscalls.MS_PRIVATE)
    namespaces.mount("tmpfs", "/run", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0755,size=16m")
    _make_root((*order["files"], qemu.SETTINGS))
    for name, descriptor in opened.items():
        place = FILES_STAGE / name
        place.touch()
        namespaces.mount(f"/proc/self/fd/{descriptor}", str(place), flags=syscalls.MS_BIND)
        if name != "kvm":
            # The runtime sets them for what is read-only alone.
            namespaces.mount("none", str(place), flags=_NO_PROGRAM)
        os.close(descriptor)
    _write_settings(base64.b64decode(order["settings"]))
    _hide_old_control_groups()
    # A daemon that was started before an upgrade orders by the keys of its own version.
    if "threads" in order:
        _limit_threads(order["threads"])
    (ROOTFS.parent / "config.json").write_text(json.dumps(order["config"]), encoding="utf-8")
    return _run(order)


def _enter(order: VmOrder) -> dict[str, int]:
    """Become root of namespace A in the cell; gives descriptors of the machine's files, opened in the cell's mount namespace.

    The machine's root must walk to them before it enters A; another user gets the right to enter the mount namespace only
    in A, whose root is that user.
    """
    steps = [
        (order["mount"], namespaces.NEWNS),
        (order["net"], namespaces.NEWNET),
        (order["user"], namespaces.NEWUSER),
    ]
    root = os.geteuid() == 0
    if not root:
        steps = [steps[2], steps[0], steps[1]]
    owner = order["owner"] if root else [_SANDBOX_ROOT, _SANDBOX_ROOT]
    opened: dict[str, int] = {}
    keeps = False
    for descriptor, kind in steps:
        if kind == namespaces.NEWUSER and root and "kvm" in opened:
            keeps = _keep_group(opened["kvm"])
        namespaces.setns(descriptor, kind)
        if kind == namespaces.NEWUSER:
            os.setresgid(0, 0, 0)
            if not keeps:
                os.setgroups([])
            os.setresuid(0, 0, 0)
        if kind == namespaces.NEWNS:
            opened = {name: _file(path) for name, path in order["files"].items()}
            if order["device"]:
                opened["kvm"] = os.open(order["device"], os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
            _give(opened[qemu.DISK], owner)
    return opened


def device_group(found: os.stat_result) -> int | None:
    """The group by which a device is open to QEMU, which has an id of its own; None where everyone may open it, or no group but root's.

    Args:
        found: the device's status.
    """
    everyone, group = stat.S_IROTH | stat.S_IWOTH, stat.S_IRGRP | stat.S_IWGRP
    if found.st_mode & everyone == everyone or found.st_mode & group != group:
        return None
    return found.st_gid or None


def _keep_group(device: int) -> bool:
    """Have the group of a device as the only one besides one's own, while one is the machine's root; gives whether one has."""
    group = device_group(os.fstat(device))
    if group is None:
        return False
    try:
        os.setgroups([group])
    except OSError:
        # A root that is not the machine's may lack it; QEMU emulates then.
        return False
    return True


def _file(path: str) -> int:
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        raise OSError(f"{path} is not a file")
    return descriptor


def _give(descriptor: int, owner: list[int]) -> None:
    found = os.fstat(descriptor)
    if [found.st_uid, found.st_gid] != owner:
        os.chown(f"/proc/self/fd/{descriptor}", *owner)


def _make_root(files: Sequence[str]) -> None:
    for name in _PLACES:
        (ROOTFS / name).mkdir(parents=True)
    FILES_STAGE.mkdir()
    # The runtime, which has fewer rights, may not make what it mounts these on.
    for name in files:
        (ROOTFS / qemu.FILES.lstrip("/") / name).touch()
    for name in _LINKS:
        if Path("/usr", name).is_dir():
            (ROOTFS / name).symlink_to(f"usr/{name}")
    (ROOTFS / "etc" / "resolv.conf").write_text(qemu.resolv_conf(), encoding="utf-8")


def _write_settings(content: bytes) -> None:
    path = FILES_STAGE / qemu.SETTINGS
    path.touch(mode=0o600)
    path.write_bytes(content)
    os.chown(path, _SANDBOX_ROOT, _SANDBOX_ROOT)


def _hide_old_control_groups() -> None:
    """Cover a hierarchy that is not the unified one: crun refuses to start next to a mixed one, though it needs none."""
    if _CONTROL_GROUPS.is_dir() and not (_CONTROL_GROUPS / "cgroup.controllers").exists():
        namespaces.mount("tmpfs", str(_CONTROL_GROUPS), "tmpfs", syscalls.MS_NOSUID, "mode=0755,size=4k")


def _limit_threads(most: int) -> None:
    """Limit what the user namespace that crun makes next can hold: where no control group does, this holds."""
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


def _run(order: VmOrder) -> dict[str, Any]:
    log, pid_file = STAGE / "log", STAGE / "pid"
    options = ["--root", str(STAGE / "crun"), "--cgroup-manager=disabled", "--log", str(log)]
    bundle = ["--bundle", str(ROOTFS.parent), "--pid-file", str(pid_file)]
    kept = f"--preserve-fds={len(order['monitors'])}"
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    places = {qemu.COMMANDS: order["monitors"][0], qemu.EVENTS: order["monitors"][1]}
    # Out of the way of the numbers that they are about to get.
    moved = {place: _above(descriptor) for place, descriptor in places.items()}
    console = _above(order["console"])
    status = os.waitpid(
        os.posix_spawn(
            order["crun"],
            ["crun", *options, "run", "--detach", kept, *bundle, order["cell"]],
            {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, _above(null), 0),
                (os.POSIX_SPAWN_DUP2, console, 1),
                (os.POSIX_SPAWN_DUP2, console, 2),
                *((os.POSIX_SPAWN_DUP2, descriptor, place) for place, descriptor in moved.items()),
            ],
        ),
        0,
    )[1]
    if os.waitstatus_to_exitcode(status):
        with contextlib.suppress(FileNotFoundError):
            return {"error": "crun: " + _last_line(log.read_text(encoding="utf-8", errors="replace"))}
        return {"error": "crun failed and printed nothing"}
    pid = int(pid_file.read_text(encoding="utf-8"))
    return {"pid": pid, "started": namespaces.started(pid)}


def _above(descriptor: int) -> int:
    return fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 64)


def _last_line(text: str) -> str:
    found = text.strip().splitlines()
    return found[-1] if found else "no reason given"


if __name__ == "__main__":
    main()
