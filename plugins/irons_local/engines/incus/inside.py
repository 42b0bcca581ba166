"""What an instance's boot steps came to, read through Incus: its files are hostile, so each is bounded in size and in time."""

from __future__ import annotations

from pathlib import Path

from irons_local.bundle import boot_steps
from irons_local.bundle.oci import CONFIG_DIRECTORY
from irons_local.cell.layout import Veth
from irons_local.engines.incus import instance
from irons_local.engines.incus.client import Incus, IncusError
from irons_local.engines.namespace.activity import sessions
from irons_local.engines.protocol import Activity

_DIGITS = 3
_WITHIN = 5.0
_MOST = 512 << 10
"""Bytes of the file system that the steps' output is in."""
_FAILING = 500
"""From this status on an answer is about Incus, and not about the file."""


async def facts(incus: Incus, sandbox: str, *, services: bool) -> dict[str, str]:
    """What `status` says: `boot` is `skipped`, `running` or `done`, then with the exit code as `boot_exit`.

    Args:
        incus: the Incus.
        sandbox: the sandbox.
        services: whether it was started with its own steps.
    """
    if not services:
        return {"boot": "skipped"}
    code = (await _read(incus, sandbox, boot_steps.EXIT) or b"").strip()
    if 0 < len(code) <= _DIGITS and code.isdigit():
        return {"boot": "done", "boot_exit": str(int(code))}
    return {"boot": "running"}


async def output(incus: Incus, sandbox: str) -> bytes | None:
    """The last of what the boot steps printed; None where Incus does not answer."""
    found = await _read(incus, sandbox, boot_steps.OUTPUT)
    return None if found is None else found[-boot_steps.KEPT :]


async def activity(incus: Incus, sandbox: str, veth: Veth) -> Activity | None:
    """How busy it is: connections that the keeper made in its cell, and processor time as Incus counts it."""
    state = await incus.find(f"instances/{instance.name_of(sandbox)}/state")
    used = ((state or {}).get("cpu") or {}).get("usage")
    try:
        return None if used is None else Activity(sessions(Path(f"/proc/{veth.pid}/net")), int(used) // 1000)
    except OSError:
        return None


async def _read(incus: Incus, sandbox: str, name: str) -> bytes | None:
    path = f"{CONFIG_DIRECTORY}/{boot_steps.REPORT}/{name}"
    try:
        return await incus.read_file(instance.name_of(sandbox), path, _MOST, _WITHIN)
    except IncusError as error:
        return b"" if 0 < error.status < _FAILING else None
