"""An instance as Incus is asked to make it, and whether it still is that: its devices and its configuration, profiles counted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from irons_local.bundle.machine import Machine
from irons_local.cell.layout import outer_name
from irons_local.engines.incus import syscalls
from irons_local.engines.incus.project import Pool
from irons_local.errors import EngineError
from irons_local.limits import Limits

NIC, DISK = "eth0", "root"
MARK = "user.irons.id"
"""The key of an instance's configuration that says which sandbox it is. What lacks it is not of irons, and is never touched."""

_PERIOD = 100
"""Milliseconds of the period that a share of processors is counted in."""
_FREE = ("volatile.", "image.", "user.")
"""Beginnings of keys that give an instance no rights: what Incus itself notes, and what people do."""


class InstanceSource(NamedTuple):
    """What a new instance is made of, and where.

    Attributes:
        fingerprint: of its image.
        pool: where its files go.
        member: the member of the cluster that is to have it; "" for Incus's choice.
    """

    fingerprint: str
    pool: Pool
    member: str


def name_of(sandbox: str) -> str:
    """The name of a sandbox's instance: Incus takes no underscore."""
    return "irons-" + sandbox.removeprefix("sb_")


def config(sandbox: str, limits: Limits) -> dict[str, str]:
    """The configuration of an instance.

    Args:
        sandbox: its id.
        limits: what it may use; a disk has none here.
    """
    cpus = {} if limits.cpus is None else {"limits.cpu.allowance": _allowance(limits.cpus)}
    memory = {} if limits.memory is None else {"limits.memory": f"{limits.memory}B"}
    processes = {} if limits.processes is None else {"limits.processes": str(limits.processes)}
    return {
        MARK: sandbox,
        "boot.autostart": "false",
        "cluster.evacuate": "stop",
        "security.idmap.isolated": "true",
        "security.guestapi": "false",
        "security.syscalls.deny": syscalls.denied(),
        # Calls of another architecture would go round it.
        "security.syscalls.deny_compat": "true",
        **cpus,
        **memory,
        **processes,
    }


def _allowance(cpus: float) -> str:
    return f"{math.ceil(cpus * _PERIOD)}ms/{_PERIOD}ms"


def root_disk(pool: Pool) -> dict[str, str]:
    """The device of its files."""
    return {"type": "disk", "path": "/", "pool": pool.name}


def nic(parent: str) -> dict[str, str]:
    """The device of its network: the outer end of its cell's veth, moved into it. Where that is missing Incus starts nothing."""
    return {"type": "nic", "nictype": "physical", "parent": parent, "name": NIC}


def creation(machine: Machine, fingerprint: str, pool: Pool) -> dict[str, Any]:
    """What Incus is asked, to make one, stopped.

    Args:
        machine: the sandbox.
        fingerprint: that of its image.
        pool: where its files go.
    """
    return {
        "name": name_of(machine.id),
        "description": f"sandbox {machine.name}",
        "type": "container",
        "profiles": [],
        "source": {"type": "image", "fingerprint": fingerprint},
        "config": config(machine.id, machine.limits),
        "devices": {DISK: root_disk(pool), NIC: nic(outer_name(machine.id))},
    }


def check_ours(found: Mapping[str, Any], sandbox: str) -> None:
    """Refuse an instance that is not the sandbox's.

    Raises:
        EngineError: someone else's has the name.
    """
    if (found.get("config") or {}).get(MARK) != sandbox:
        raise EngineError(
            "exists",
            f"Incus has an instance {name_of(sandbox)} that is not of irons, and it stays as it is",
        )


def check(found: Mapping[str, Any], sandbox: str, limits: Limits, parent: str) -> None:
    """Refuse to start an instance that has more than irons gave it.

    Args:
        found: the instance, as Incus describes it, with what its profiles add.
        sandbox: the sandbox's id.
        limits: its limits.
        parent: the outer end of its cell's veth.

    Raises:
        EngineError: a device or a key is different; with which.
    """
    devices: Mapping[str, Mapping[str, str]] = found.get("expanded_devices") or {}
    for name, device in devices.items():
        if name == NIC and dict(device) == nic(parent):
            continue
        wanted = {**root_disk(Pool(str(device.get("pool")), bounds=False))}
        if name != DISK or dict(device) != wanted:
            raise _changed(
                sandbox, f"device {name} ({device.get('type', 'unknown')})", "config device remove"
            )
    for name in (NIC, DISK):
        if name not in devices:
            raise _changed(sandbox, f"no device {name}", "config device list")
    wanted = config(sandbox, limits)
    given: Mapping[str, str] = found.get("expanded_config") or {}
    for key in sorted({*wanted, *given}):
        if key != MARK and key.startswith(_FREE):
            continue
        if given.get(key) != wanted.get(key):
            raise _changed(sandbox, f"{key}={given.get(key, '')}", "config edit")


def _changed(sandbox: str, what: str, command: str) -> EngineError:
    return EngineError(
        "state",
        f"instance {name_of(sandbox)} was changed at Incus and is not started: it has {what}",
        f"look at it: incus --project irons {command} {name_of(sandbox)}",
    )
