"""What came of a running sandbox's boot steps, read from outside: its files are hostile, bounded, and reached through no link."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from irons_local.bundle import boot_steps, entrypoint
from irons_local.bundle.oci import CONFIG_DIRECTORY
from irons_local.linux import syscalls
from irons_local.linux.processes import Process, open_process

LOG = "boot.log"
"""In the sandbox's directory: what the steps of its last run printed last."""

_WITHIN = f"{CONFIG_DIRECTORY}/{boot_steps.REPORT}".lstrip("/")
_DIGITS = 3


def facts(process: Process) -> dict[str, str]:
    """What `status` says: `boot` is `skipped`, `running` or `done`, then with the exit code as `boot_exit`.

    Where the image's entrypoint is run, `entrypoint` is `running` or `done`, then with its exit code as `entrypoint_exit`.
    """
    root = _root(process)
    if root is None:
        return {}
    try:
        settings = CONFIG_DIRECTORY.lstrip("/")
        skipped = _read(root, f"{settings}/{boot_steps.SKIPPED}", 1) is not None
        # A sandbox that an older irons started without steps has no driver.
        if skipped or _read(root, f"{settings}/{boot_steps.DRIVER}", 1) is None:
            return {"boot": "skipped"}
        steps = _progress_facts("boot", _read(root, f"{_WITHIN}/{boot_steps.EXIT}", _DIGITS + 1) or b"")
        program = _read(root, f"{_WITHIN}/{entrypoint.STATE}", len(entrypoint.RUNNING) + 1)
    finally:
        os.close(root)
    return steps if program is None else steps | _progress_facts("entrypoint", program)


def _progress_facts(name: str, text: bytes) -> dict[str, str]:
    """The facts of something that runs until its exit code is there."""
    code = text.strip()
    if len(code) <= _DIGITS and code.isdigit():
        return {name: "done", f"{name}_exit": str(int(code))}
    return {name: "running"}


def output(process: Process) -> bytes:
    """The last of what the boot steps printed."""
    root = _root(process)
    if root is None:
        return b""
    try:
        return _read(root, f"{_WITHIN}/{boot_steps.OUTPUT}", boot_steps.KEPT) or b""
    finally:
        os.close(root)


def keep(process: Process, home: Path) -> None:
    """Keep the output in the sandbox's directory, to be read after it stops; ignore a failure."""
    text = output(process)
    with suppress(OSError):
        path = home / LOG
        path.unlink(missing_ok=True)
        if text:
            path.touch(mode=0o600)
            path.write_bytes(text)


def _root(process: Process) -> int | None:
    """The root directory of process 1, as a descriptor; None where it is gone."""
    pinned = open_process(process)
    if pinned is None:
        return None
    try:
        found = os.open(f"/proc/{process.pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        os.close(pinned)
        return None
    os.close(pinned)
    # The number may have come to mean another process before its directory was opened.
    again = open_process(process)
    if again is None:
        os.close(found)
        return None
    os.close(again)
    return found


def _read(root: int, path: str, most: int) -> bytes | None:
    """The last `most` bytes of a plain file beneath `root`; None where there is none."""
    try:
        descriptor = syscalls.open_beneath(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            return None
        with suppress(OSError):
            file.seek(max(0, found.st_size - most))
            return file.read(most) or b""
    return None
