"""What Incus is asked to make of a sandbox, what of an instance is refused before it starts, and its process 1."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest

from irons_local.bundle.machine import Machine
from irons_local.engines.incus import guest, instance
from irons_local.engines.incus.project import Pool
from irons_local.errors import EngineError
from irons_local.limits import Limits

SANDBOX = "sb_0123456789abcdef"
LIMITS = Limits(cpus=1.5, memory=512 << 20, processes=100)
MACHINE = Machine(SANDBOX, "box", "img_1", "debian", "ssh-ed25519 AAAA", LIMITS)
POOL = Pool("default", bounds=True)
PARENT = "irs-0123456789a"


def described(**changes: Any) -> dict[str, Any]:
    """The instance of the sandbox as Incus describes it, with some changes."""
    made = instance.creation(MACHINE, "f", POOL)
    noted = {"volatile.uuid": "1", "image.os": "irons", "user.note": "mine"}
    return {
        "config": made["config"],
        "expanded_config": {**made["config"], **noted, **changes.get("config", {})},
        "expanded_devices": {**made["devices"], **changes.get("devices", {})},
    }


def test_an_instance_is_made_with_little() -> None:
    """It has no profile, the disk and the one network device, its limits, and does not start by itself."""
    made = instance.creation(MACHINE, "fingerprint", POOL)
    assert made["name"] == "irons-0123456789abcdef"
    assert made["profiles"] == []
    assert made["devices"] == {
        "root": {"type": "disk", "path": "/", "pool": "default"},
        "eth0": {"type": "nic", "nictype": "physical", "parent": PARENT, "name": "eth0"},
    }
    assert made["config"]["boot.autostart"] == "false"
    assert made["config"]["limits.cpu.allowance"] == "150ms/100ms"
    assert made["config"]["limits.memory"] == f"{512 << 20}B"
    assert made["config"]["limits.processes"] == "100"


def test_what_irons_made_may_start() -> None:
    """Notes of Incus and of people change nothing about it."""
    instance.check(described(), SANDBOX, LIMITS, PARENT)
    instance.check_ours(described(), SANDBOX)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"devices": {"eth1": {"type": "nic", "network": "incusbr0"}}}, "device eth1 (nic)"),
        (
            {"devices": {"eth0": {"type": "nic", "nictype": "bridged", "parent": "br0", "name": "eth0"}}},
            "device eth0",
        ),
        (
            {
                "devices": {
                    "eth0": {"type": "nic", "nictype": "physical", "parent": "irs-other", "name": "eth0"}
                }
            },
            "eth0",
        ),
        (
            {
                "devices": {
                    "web": {"type": "proxy", "listen": "tcp:0.0.0.0:80", "connect": "tcp:127.0.0.1:80"}
                }
            },
            "web (proxy)",
        ),
        ({"devices": {"home": {"type": "disk", "source": "/home", "path": "/mnt"}}}, "device home (disk)"),
        (
            {"devices": {"root": {"type": "disk", "path": "/", "pool": "default", "source": "/"}}},
            "device root",
        ),
        ({"config": {"security.privileged": "true"}}, "security.privileged=true"),
        ({"config": {"security.nesting": "true"}}, "security.nesting=true"),
        ({"config": {"raw.lxc": "lxc.net.1.type = none"}}, "raw.lxc="),
        ({"config": {"limits.memory": "64GiB"}}, "limits.memory=64GiB"),
        ({"config": {"security.guestapi": "true"}}, "security.guestapi=true"),
    ],
)
def test_what_someone_added_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    """A device or a key that irons did not give, by whatever profile, keeps the instance from starting."""
    with pytest.raises(EngineError) as caught:
        instance.check(described(**changes), SANDBOX, LIMITS, PARENT)
    assert named in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("device", ["root", "eth0"])
def test_what_someone_removed_is_refused(device: str) -> None:
    """Neither may be missing."""
    found = described()
    del found["expanded_devices"][device]
    with pytest.raises(EngineError, match=f"no device {device}"):
        instance.check(found, SANDBOX, LIMITS, PARENT)


@pytest.mark.parametrize("config", [{}, {"user.irons.id": "sb_fedcba9876543210"}])
def test_what_is_not_of_the_sandbox_is_not_touched(config: dict[str, str]) -> None:
    """An instance of the name that lacks the sandbox's mark is someone else's."""
    with pytest.raises(EngineError, match="is not of irons"):
        instance.check_ours({"config": config}, SANDBOX)


@pytest.mark.process
def test_the_script_of_process_1_is_a_shell_script_whatever_it_carries() -> None:
    """Settings of any text, quotes and line ends included, leave a script that sh(1) parses."""
    settings = {"environment": "export A='it'\\''s\n$(a) `b` \\ \"'\n", "ssh_host_ed25519_key": "secret\n"}
    script = guest.script(SANDBOX, "box", settings)
    subprocess.run(["sh", "-n"], input=script, check=True)
    assert b"chmod 600 /run/irons/ssh_host_ed25519_key" in script
    assert b"chmod 644 /run/irons/environment" in script
