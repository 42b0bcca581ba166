"""Enters a cell, mounts a sandbox's root file system there and starts its process 1 with crun; run by `forkserver`, once per start.

What was started, or why nothing was, is also written to the descriptor `note`, so that a control plane that was restarted
in between finds it. Nothing it mounts outlives the cell.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import socket
import stat
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, NotRequired, TypedDict

from irons_local.bundle import boot_steps, quotas, sysview
from irons_local.bundle.man_pages import MAN_PAGES
from irons_local.engines.protocol import SSH_PORT
from irons_local.ipc.framing import line_of
from irons_local.linux import disk_images, namespaces, syscalls
from irons_local.linux.tcp import tcp_socket

STAGE = Path("/run/irons")
"""Where all of it is mounted: in the cell's mount namespace no one else needs what the host has in /run."""
ROOTFS = STAGE / "bundle" / "rootfs"
SETTINGS = STAGE / "settings"
SYSVIEW = STAGE / "sys"
KIT = STAGE / "kit"
_NOTHING = STAGE / "nothing"
_CONTROL_GROUPS = Path("/sys/fs/cgroup")
GREETED_WITHIN = 2.0
"""Seconds in which an SSH server is asked from here; one that takes longer is asked by way of the keeper."""
_ASK_AGAIN = 0.001
_SLOWER = 1.2
_SANDBOX_ROOT = 1
"""Id, in namespace A, of a sandbox's root."""


class Inherited(NamedTuple):
    """Descriptors that come with an order.

    Attributes:
        user, net, mount: the cell's namespaces.
        cgroups: the `cgroup.procs` to join.
        console: becomes process 1's standard output and error.
        note: the answer is also written to it.
    """

    user: int
    net: int
    mount: int
    cgroups: list[int]
    console: int
    note: int


class BootOrder(TypedDict):
    """What to start, as it travels in JSON.

    Attributes:
        inherited: the descriptors, in the order of `Inherited`.
        owner: ids, on the machine, of namespace A's root and of the sandbox's root: (uid, gid) each.
        disk: the file with the file system that `upper` and `work` lie in; "" where they lie with the other files.
        lower, upper, work: paths of the overlay's directories; `lower` topmost first.
        redirects: mount it as the machine's root, so that directories of `lower` can be renamed.
        kit: path of the directory with the SSH server for all images; "" where the image's own is run.
        files: text of files to put into the root file system, by path beneath it.
        forget: files to remove from it before, by path beneath it; a `*` at the end stands for any.
        settings: text of the files of the settings directory.
        config: the OCI configuration.
        processes: how many there may be at once, or None.
        processors: how many it sees, or None for all.
        sysview: text of the files of its `/sys`, by path beneath it.
        crun: path of the runtime.
        cell: the container's name.
    """

    inherited: Inherited
    owner: list[list[int]]
    disk: str
    lower: list[str]
    upper: str
    work: str
    redirects: bool
    kit: str
    files: dict[str, str]
    forget: NotRequired[list[str]]
    settings: dict[str, str]
    config: dict[str, Any]
    processes: int | None
    processors: int | None
    sysview: dict[str, str]
    crun: str
    cell: str


class BootAnswer(TypedDict, total=False):
    """What came of an order, as it travels in JSON.

    Attributes:
        pid, started: process 1, and when it started; None where it has ended already.
        greets: whether its SSH server has answered within `GREETED_WITHIN`.
        error: why there is no process 1; nothing else is there then.
    """

    pid: int
    started: int | None
    greets: bool
    error: str


def carry_out(order: BootOrder) -> BootAnswer:
    """Start a sandbox's process 1, note it, and wait a while for its SSH server."""
    answer: BootAnswer
    try:
        answer = boot(order)
    except OSError as error:
        answer = {"error": line_of(error)}
    os.write(order["inherited"].note, json.dumps(answer).encode())
    if "pid" not in answer or answer.get("started") is None:
        return answer
    return {**answer, "greets": _greets(answer["pid"], time.monotonic() + GREETED_WITHIN)}


def boot(order: BootOrder) -> BootAnswer:
    """Start the sandbox's process 1; gives its process id and start time.

    Raises:
        OSError: a step failed; its text says which.
    """
    given = order["inherited"]
    for descriptor in (given.user, given.net, given.mount, given.console, given.note, *given.cgroups):
        os.set_inheritable(descriptor, False)
    for group in given.cgroups:
        os.write(group, b"0")
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    os.umask(0o022)
    share = quotas.counts()
    layers = _enter(order)
    quotas.hold(share)
    if not order["redirects"]:
        _mount_overlay(layers, syscalls.OVERLAY)
    if layers.kit is not None:
        _mount_kit(layers.kit)
    _forget(order.get("forget", ()))
    _lay(order["files"])
    if order["files"]:
        _make_man_pages()
    _write_settings(order["settings"])
    sysview.keep_to(order["processors"], order["cell"])
    sysview.lay(SYSVIEW, order["sysview"])
    _hide_old_control_groups()
    _limit_processes(order["processes"])
    (ROOTFS.parent / "config.json").write_text(json.dumps(order["config"]), encoding="utf-8")
    return _run(order)


class _Layers:
    """Descriptors of the overlay's directories, opened while their paths could still be walked."""

    def __init__(self, order: BootOrder) -> None:
        self.lower = [_directory(path) for path in order["lower"]]
        self.upper = _directory(order["upper"])
        self.work = _directory(order["work"])
        self.kit = _directory(order["kit"]) if order["kit"] else None


def _directory(path: str) -> int:
    return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _enter(order: BootOrder) -> _Layers:
    """Become root of namespace A in the cell, with the overlay's directories open.

    The machine's root must walk to them before it enters A, whose root may not; another user gets the right to
    enter the mount namespace only in A, whose root may. They are opened in the cell's mount namespace because
    the kernel takes no directory of another one for an overlay.
    """
    if os.geteuid() == 0:
        namespaces.setns(order["inherited"].mount, namespaces.NEWNS)
        if order["disk"]:
            disk_images.mount(Path(order["disk"]), Path(order["upper"]).parent)
        layers = _Layers(order)
        outer, inner = order["owner"]
        _give(layers.work, outer)
        _give(layers.upper, inner)
        if order["redirects"]:
            _become_mounter(*outer)
            _mount_overlay(layers, syscalls.OVERLAY_OF_ROOT)
        namespaces.setns(order["inherited"].net, namespaces.NEWNET)
        namespaces.setns(order["inherited"].user, namespaces.NEWUSER)
        _become_root()
        return layers
    namespaces.setns(order["inherited"].user, namespaces.NEWUSER)
    _become_root()
    namespaces.setns(order["inherited"].mount, namespaces.NEWNS)
    namespaces.setns(order["inherited"].net, namespaces.NEWNET)
    layers = _Layers(order)
    _give(layers.upper, [_SANDBOX_ROOT, _SANDBOX_ROOT])
    return layers


def enter_cell(user: int, net: int, mount: int) -> None:
    """Become root of namespace A in a cell, given descriptors of its namespaces.

    Raises:
        OSError: the kernel refuses.
    """
    steps = [(mount, namespaces.NEWNS), (net, namespaces.NEWNET)]
    # The machine's root may enter a mount namespace before it enters A, and not after; another user the other way.
    steps.insert(len(steps) if os.geteuid() == 0 else 0, (user, namespaces.NEWUSER))
    for descriptor, kind in steps:
        namespaces.setns(descriptor, kind)
        if kind == namespaces.NEWUSER:
            _become_root()


def _become_mounter(uid: int, gid: int) -> None:
    """Become namespace A's root with the few of the machine's rights that an overlay with redirects takes.

    The kernel reads and writes all layers with the rights of whoever mounted them. So that no sandbox gets the blocks
    that a file system keeps for root, or more than a quota, that must neither be the machine's root nor have
    CAP_SYS_RESOURCE.
    """
    namespaces.prctl(namespaces.PR_SET_KEEPCAPS, 1)
    os.setresgid(gid, gid, gid)
    os.setgroups([])
    os.setresuid(uid, uid, uid)
    namespaces.prctl(namespaces.PR_SET_KEEPCAPS, 0)
    namespaces.capset(*namespaces.OF_MOUNTER)


def _become_root() -> None:
    os.setresgid(0, 0, 0)
    os.setgroups([])
    os.setresuid(0, 0, 0)


def _give(descriptor: int, owner: list[int]) -> None:
    path = f"/proc/self/fd/{descriptor}"
    found = Path(path).stat()
    if [found.st_uid, found.st_gid] != owner:
        os.chown(path, *owner)


def _mount_overlay(layers: _Layers, kind: str) -> None:
    """Mount a sandbox's files at `ROOTFS`; `kind` is one of the kinds of `syscalls`."""
    namespaces.mount("none", "/", flags=namespaces.MS_REC | syscalls.MS_PRIVATE)
    namespaces.mount("tmpfs", "/run", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "mode=0755,size=16m")
    ROOTFS.mkdir(parents=True)
    lower = ":".join(f"/proc/self/fd/{descriptor}" for descriptor in layers.lower)
    options = (
        f"lowerdir={lower},upperdir=/proc/self/fd/{layers.upper},workdir=/proc/self/fd/{layers.work},{kind}"
    )
    namespaces.mount("overlay", str(ROOTFS), "overlay", syscalls.MS_NODEV, options)


def _mount_kit(kit: int) -> None:
    """Show the kit at `KIT`, read-only; as an overlay, so that a file system without `exec` does not matter."""
    KIT.mkdir()
    # An overlay that nothing is written to takes two directories.
    _NOTHING.mkdir()
    options = f"lowerdir=/proc/self/fd/{kit}:{_NOTHING},userxattr"
    flags = syscalls.MS_RDONLY | syscalls.MS_NODEV | syscalls.MS_NOSUID
    namespaces.mount("overlay", str(KIT), "overlay", flags, options)


def _forget(paths: Sequence[str]) -> None:
    """Remove files from the root file system, beneath it and through no link; what is not there is passed over."""
    root = os.open(ROOTFS, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in paths:
            parent, _, name = path.rpartition("/")
            with contextlib.suppress(OSError):
                directory = syscalls.open_beneath(root, parent or ".", os.O_RDONLY | os.O_DIRECTORY)
                try:
                    _remove_files(directory, name)
                finally:
                    os.close(directory)
    finally:
        os.close(root)


def _remove_files(directory: int, name: str) -> None:
    found = os.listdir(directory) if name.endswith("*") else [name]
    for each in found:
        if each.startswith(name.removesuffix("*")):
            with contextlib.suppress(OSError):
                if stat.S_ISREG(os.stat(each, dir_fd=directory, follow_symlinks=False).st_mode):
                    os.unlink(each, dir_fd=directory)


def _lay(files: dict[str, str]) -> None:
    """Put files into the root file system, replacing what is there, beneath it and through no link."""
    root = os.open(ROOTFS, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path, text in files.items():
            parent, _, name = path.rpartition("/")
            directory = syscalls.open_beneath(root, parent or ".", os.O_PATH | os.O_DIRECTORY)
            try:
                _replace(directory, name, text)
            except IsADirectoryError as error:
                raise OSError(
                    f"/{path} is a directory with something in it, and must be a file: remove it in the original"
                ) from error
            finally:
                os.close(directory)
    finally:
        os.close(root)


def _make_man_pages() -> None:
    """Make `MAN_PAGES` in a new machine of an image that an older version made without them."""
    root = os.open(ROOTFS, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.close(syscalls.open_beneath(root, "etc/dpkg", os.O_PATH | os.O_DIRECTORY))
            directory = syscalls.open_beneath(root, "usr/share/man", os.O_RDONLY | os.O_DIRECTORY)
            try:
                for path in MAN_PAGES:
                    _make_directory(directory, path.rpartition("/")[2])
            finally:
                os.close(directory)
    finally:
        os.close(root)


def _make_directory(parent: int, name: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o755, dir_fd=parent)
        os.chown(name, _SANDBOX_ROOT, _SANDBOX_ROOT, dir_fd=parent, follow_symlinks=False)


def _replace(directory: int, name: str, text: str) -> None:
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        pass
    except IsADirectoryError:
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError:
            raise IsADirectoryError from None
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, 0o644, dir_fd=directory), "w", encoding="utf-8") as file:
        file.write(text)
        os.fchown(file.fileno(), _SANDBOX_ROOT, _SANDBOX_ROOT)


def _write_settings(settings: dict[str, str]) -> None:
    SETTINGS.mkdir()
    for name, text in settings.items():
        _write_setting(name, text)
    # In what is read-only inside, the place for the kit cannot be made later.
    (SETTINGS / KIT.name).mkdir()
    (SETTINGS / boot_steps.REPORT).mkdir()
    os.chown(SETTINGS, _SANDBOX_ROOT, _SANDBOX_ROOT)


def _write_setting(name: str, text: str) -> None:
    path = SETTINGS / name
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")
    os.chown(path, _SANDBOX_ROOT, _SANDBOX_ROOT)
    # The unprivileged half of sshd reads authorized keys as the person who logs in.
    path.chmod(0o600 if name.endswith("_key") else 0o644)


def _limit_processes(most: int | None) -> None:
    """Limit what the user namespace that crun makes next can hold, all its users together.

    The kernel takes a user namespace's limit from the process that makes it, and counts each process in every
    namespace above too (since Linux 5.14): set here, in the cell's own namespace, the count is this sandbox's alone.
    """
    if most is None:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (most, most))


def _hide_old_control_groups() -> None:
    """Cover a hierarchy that is not the unified one: crun refuses to start next to a mixed one, though it needs none."""
    if _CONTROL_GROUPS.is_dir() and not (_CONTROL_GROUPS / "cgroup.controllers").exists():
        namespaces.mount("tmpfs", str(_CONTROL_GROUPS), "tmpfs", syscalls.MS_NOSUID, "mode=0755,size=4k")


def _run(order: BootOrder) -> BootAnswer:
    log, pid_file = STAGE / "log", STAGE / "pid"
    options = ["--root", str(STAGE / "crun"), "--cgroup-manager=disabled", "--log", str(log)]
    bundle = ["--bundle", str(ROOTFS.parent), "--pid-file", str(pid_file)]
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    status = os.waitpid(
        os.posix_spawn(
            order["crun"],
            ["crun", *options, "run", "--detach", *bundle, order["cell"]],
            {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, null, 0),
                (os.POSIX_SPAWN_DUP2, order["inherited"].console, 1),
                (os.POSIX_SPAWN_DUP2, order["inherited"].console, 2),
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


def _last_line(text: str) -> str:
    found = text.strip().splitlines()
    return found[-1] if found else "no reason given"


def _greets(init: int, deadline: float) -> bool:
    """Wait until the SSH server in this cell says who it is, or `init` ends, or it is `deadline`."""
    try:
        process = os.pidfd_open(init)
    except OSError:
        return False
    ends = select.poll()
    ends.register(process, select.POLLIN)
    pause = _ASK_AGAIN
    try:
        while (left := deadline - time.monotonic()) > 0:
            if _greeting(left) == b"SSH-":
                return True
            if ends.poll(pause * 1000):
                return False
            pause = min(pause * _SLOWER, left)
        return False
    finally:
        os.close(process)


def _greeting(within: float) -> bytes:
    """The first four bytes that the SSH server says; none where it does not answer."""
    with contextlib.suppress(OSError), tcp_socket(socket.AF_INET) as server:
        server.settimeout(within)
        server.connect(("127.0.0.1", SSH_PORT))
        return server.recv(4)
    return b""
