"""A program that runs one function in user namespaces with a cell's ids, so that it may own a sandbox's files.

`python -m irons_local.linux.userns_main LEVEL MODULE:FUNCTION`: LEVEL is `a` (whose 0 is this user and whose
1 is a sandbox's root) or `b` (whose 0 is a sandbox's root, and which can touch nothing of this user's). The
function gets the JSON object on standard input (`give` in it: descriptors to hand to a sandbox's root first; `dies_with`:
the process that started this one, with whose end it is killed) and a callable for progress; each line on standard output is a JSON
object, the last one `{"ok": ...}` or `{"error": {"code", "message", "hint"}}`.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from irons_local.errors import EngineError
from irons_local.linux import disk_images, namespaces, syscalls
from irons_local.linux.idmap import Extent, IdMap, IdMapError, inner_extent, lines, outer_map

STAGE = "/run"
"""Where something is mounted in a mount namespace of our own, in which no one needs what the host has there."""

Level = Literal["a", "b"]
Say = Callable[[str, float | None], None]
"""Called with a line for people and the part done, as `irons_local.progress.Progress` is."""
Task = Callable[[dict[str, Any], Say], dict[str, Any]]


def main(arguments: list[str] | None = None) -> None:
    """Enter the namespaces, run the function, answer, and exit with 0 or 1."""
    level, target = sys.argv[1:] if arguments is None else arguments
    module, _, function = target.partition(":")
    task: Task = getattr(importlib.import_module(module), function)
    request = json.load(sys.stdin)
    if "dies_with" in request:
        syscalls.die_with_parent(signal.SIGKILL)
        if os.getppid() != request.pop("dies_with"):
            os._exit(1)
    try:
        enter("b" if level == "b" else "a", outer_map(), request)
        answer = {"ok": task(request, _say)}
    except (EngineError, IdMapError) as error:
        said = {"code": getattr(error, "code", "machine"), "message": str(error)}
        answer = {"error": {**said, "hint": getattr(error, "hint", "")}}
    except OSError as error:
        answer = {"error": {"code": "failed", "message": _text(error)}}
    _write(answer)
    sys.stdout.flush()
    # Not through the interpreter's exit: this is a fork of the process that was started.
    os._exit(0 if "ok" in answer else 1)


def enter(level: Level, idmap: IdMap, request: dict[str, Any]) -> None:
    """Go into user namespace A, with a mount namespace of its own, and with `b` on into B.

    Comes back in a new process; the one that called waits for it and exits as it does. What must be done on the
    way, where it is allowed, is asked for in the request: `give`, descriptors of files of this user that become
    those of a sandbox's root; `layers`, directories (topmost first) that are to be seen as one, behind the descriptor
    that is put into the request as `rootfs`: read-only, or with changes going to `upper` (its `work` next to it),
    and with `redirects` as the machine's root mounts them (`syscalls.OVERLAY_OF_ROOT`);
    `disk`, a file with a file system (`disk_images`) that is mounted on `STAGE` first, so that a layer may lie there;
    `open`, paths of directories by the name under which the request gets a descriptor of each.

    Raises:
        OSError: the kernel, or newuidmap(1), refused.
    """
    # The machine's root can walk to what belongs to it, and A's root could not.
    if os.geteuid() == 0:
        _open(request)
    if os.geteuid() == 0 and "layers" in request:
        namespaces.unshare(namespaces.NEWNS)
        namespaces.mount("none", "/", flags=namespaces.MS_REC | syscalls.MS_PRIVATE)
        if "disk" in request:
            disk_images.mount(Path(request.pop("disk")), Path(STAGE), syscalls.MS_RDONLY)
        request["rootfs"] = _merge(request)
    _descend(namespaces.NEWUSER | namespaces.NEWNS, lambda pid: _map_outer(pid, idmap))
    namespaces.mount("none", "/", flags=namespaces.MS_REC | syscalls.MS_PRIVATE)
    for descriptor in request.get("give", ()):
        os.fchown(descriptor, 1, 1)
    _open(request)
    if "layers" in request:
        request["rootfs"] = _merge(request)
    if level == "b":
        _descend(namespaces.NEWUSER | namespaces.NEWNS, _map_inner)


def _descend(flags: int, map_ids: Callable[[int], None]) -> None:
    """Fork; the child unshares, the parent maps the child's ids and stays behind until it ends."""
    out_read, out_write = os.pipe()
    go_read, go_write = os.pipe()
    child = os.fork()
    if child:
        os.close(out_write)
        os.close(go_read)
        complaint = os.read(out_read, 4096)
        try:
            if complaint != b"ready":
                raise OSError(complaint.decode(errors="replace") or "the process in the namespace died")
            map_ids(child)
        except OSError:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            raise
        os.write(go_write, b"go")
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    os.close(out_read)
    os.close(go_write)
    syscalls.die_with_parent(signal.SIGKILL)
    try:
        namespaces.unshare(flags)
    except OSError as error:
        os.write(out_write, f"a namespace cannot be made: {error.strerror}".encode())
        os._exit(1)
    os.write(out_write, b"ready")
    if not os.read(go_read, 2):
        os._exit(1)
    os.close(out_write)
    os.close(go_read)
    os.setresgid(0, 0, 0)
    os.setgroups([])
    os.setresuid(0, 0, 0)
    syscalls.die_with_parent(signal.SIGKILL)
    # The next one's maps are written through its files in /proc.
    syscalls.stay_reachable()


def _open(request: dict[str, Any]) -> None:
    for name, path in request.pop("open", {}).items():
        request[name] = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


def _merge(request: dict[str, Any]) -> int:
    """Mount directories over one another; gives a descriptor of the whole."""
    # By number, so that no character in a path means anything to the mount.
    lower = ":".join(_numbered(path) for path in request.pop("layers"))
    flags = syscalls.MS_NODEV | syscalls.MS_NOSUID
    kind = syscalls.OVERLAY_OF_ROOT if request.pop("redirects", False) else syscalls.OVERLAY
    options = f"lowerdir={lower},{kind}"
    if "upper" in request:
        options += f",upperdir={_numbered(request.pop('upper'))},workdir={_numbered(request.pop('work'))}"
    else:
        flags |= syscalls.MS_RDONLY
    namespaces.mount("overlay", STAGE, "overlay", flags, options)
    return os.open(STAGE, os.O_RDONLY | os.O_DIRECTORY)


def _numbered(path: str) -> str:
    """A name for a directory that the mount can use; it stays open for as long as this process."""
    return f"/proc/self/fd/{os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)}"


def _map_outer(pid: int, idmap: IdMap) -> None:
    if os.geteuid() == 0:
        _write_maps(pid, idmap.uids, idmap.gids)
        return
    for program, extents in (("newuidmap", idmap.uids), ("newgidmap", idmap.gids)):
        numbers = [str(number) for extent in extents for number in extent]
        try:
            done = subprocess.run([program, str(pid), *numbers], capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise OSError(f"{program} is not installed (see `irons doctor`: newuidmap)") from error
        if done.returncode:
            raise OSError(f"{program}: {done.stderr.strip() or done.returncode}")


def _map_inner(pid: int) -> None:
    extents = (inner_extent(),)
    _write_maps(pid, extents, extents)


def _write_maps(pid: int, uids: tuple[Extent, ...], gids: tuple[Extent, ...]) -> None:
    for name, extents in (("uid_map", uids), ("gid_map", gids)):
        # One write(2) is all that the kernel takes.
        descriptor = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(descriptor, lines(extents).encode())
        finally:
            os.close(descriptor)


def _say(line: str, done: float | None) -> None:
    _write({"progress": line, "done": done})
    sys.stdout.flush()


def _write(body: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(body) + "\n")


def _text(error: OSError) -> str:
    if error.errno is None:
        return str(error)
    named = f": {error.filename}" if error.filename else ""
    return f"{error.strerror}{named}"


if __name__ == "__main__":
    main()
