"""The project of irons in an Incus: made once, restricted so that its instances can have little, and never another's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from irons_local.engines.incus.client import Incus
from irons_local.errors import EngineError

NAME = "irons"
_OURS = "user.irons"
_CONFIG: Mapping[str, str] = {
    "features.images": "true",
    "features.profiles": "true",
    "features.storage.volumes": "true",
    "features.storage.buckets": "true",
    "restricted": "true",
    # The only network device that an instance gets is the veth of its cell, which no network of Incus has.
    "restricted.devices.nic": "allow",
    "restricted.cluster.target": "allow",
    _OURS: "1",
}
_NEEDED = ("container_nic_ipvlan", "projects_restrictions", "projects_restricted_cluster_target")
_QUOTAS = frozenset({"btrfs", "zfs", "lvm", "lvmcluster", "ceph", "linstor"})


class Pool(NamedTuple):
    """The storage pool of the instances' root disks.

    Attributes:
        name: its name.
        bounds: whether it bounds what one of them takes.
    """

    name: str
    bounds: bool


async def ensure(incus: Incus) -> Pool:
    """Make the project where there is none, and return the pool to use.

    Raises:
        EngineError: there is another's of that name, it was changed, there is no storage, or Incus is too old.
    """
    server = await incus.get("")
    lacking = [each for each in _NEEDED if each not in server.get("api_extensions", ())]
    if lacking:
        version = (server.get("environment") or {}).get("server_version", "of this version")
        raise EngineError(
            "machine", f"Incus {version} is too old: it lacks {lacking[0]}", "install Incus 6.0 or newer"
        )
    found = await incus.find(f"projects/{incus.project}")
    if found is None:
        body = {"name": incus.project, "description": "sandboxes of irons", "config": dict(_CONFIG)}
        await incus.change("POST", "projects", body)
    else:
        _check(incus.project, found.get("config") or {})
    return await _pool(incus)


def is_ours(config: Mapping[str, str]) -> bool:
    """Whether a project of this configuration was made by irons."""
    return config.get(_OURS) == _CONFIG[_OURS]


def _check(project: str, config: Mapping[str, str]) -> None:
    if not is_ours(config):
        raise EngineError(
            "machine",
            f"Incus has a project {project} that is not of irons, and it stays as it is",
            f"rename it: incus project rename {project} OTHER",
        )
    loosened = {
        key: value
        for key, value in config.items()
        if key.startswith("restricted") and value != _CONFIG.get(key, "block")
    }
    for key, value in _CONFIG.items():
        if key.startswith("restricted") and config.get(key) != value:
            loosened.setdefault(key, config.get(key, ""))
    if loosened:
        key, value = min(loosened.items())
        was = f"incus project set {project} {key}={_CONFIG[key]}" if key in _CONFIG else ""
        raise EngineError(
            "machine",
            f"the Incus project {project} was changed: {key} is {value or 'not set'}",
            was or f"incus project unset {project} {key}",
        )


async def _pool(incus: Incus) -> Pool:
    pools: list[dict[str, Any]] = await incus.get("storage-pools", recursion="1")
    if not pools:
        raise EngineError("machine", "Incus has no storage pool", "incus storage create default btrfs")
    by_name = {str(pool["name"]): pool for pool in pools}
    chosen = by_name.get("default") or by_name[min(by_name)]
    return Pool(str(chosen["name"]), chosen.get("driver") in _QUOTAS)
