"""The bundle that crun runs, as the OCI runtime specification 1.0.2 writes it (config.md, config-linux.md)."""

from __future__ import annotations

from typing import Any

from irons_local.bundle import seccomp
from irons_local.linux.idmap import inner_extent

CONFIG_DIRECTORY = "/run/irons"
KIT_DIRECTORY = f"{CONFIG_DIRECTORY}/kit"
BUSYBOX, MODPROBE, MODULES = "busybox", "modprobe", "modules"
"""In the kit of a virtual machine: a program, a link to it by which it loads modules, and the directory of these, by release."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Capabilities over the sandbox's own user namespace only; none of them reaches the cell's network, which belongs
# to the namespace above. NET_RAW is there so that programs whose files ask for it (ping) can be executed at all.
_CAPABILITIES = (
    "CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_BIND_SERVICE NET_RAW SETGID SETUID SETFCAP SETPCAP SYS_CHROOT KILL"
    " AUDIT_WRITE"
)
_MASKED = (
    "/proc/acpi",
    "/proc/cmdline",
    "/proc/diskstats",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/mdstat",
    "/proc/partitions",
    "/proc/swaps",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
)
_AS_A_VIEW = ("bind", "ro", "nosuid", "nodev", "noexec")
_READ_ONLY = (
    "/proc/asound",
    "/proc/bus",
    "/proc/fs",
    "/proc/irq",
    "/proc/sys",
    "/proc/sysrq-trigger",
)


def config(
    *,
    rootfs: str,
    hostname: str,
    args: list[str],
    settings: str,
    sysview: str = "",
    kit: str = "",
    machine: str,
    cgroup_namespace: bool,
) -> dict[str, Any]:
    """The `config.json` of a sandbox.

    Args:
        rootfs: path of the mounted root file system.
        hostname: what the machine calls itself.
        args: the program that is process 1.
        settings: path of the directory that appears, read-only, at `CONFIG_DIRECTORY`.
        sysview: path of the directory that appears, read-only, at `/sys`; "" where there is none.
        kit: path of the directory that appears, read-only, at `KIT_DIRECTORY`; "" where there is none.
        machine: the processor's architecture as `uname -m` says it.
        cgroup_namespace: hide where in the host's control groups the sandbox is.
    """
    capabilities = ["CAP_" + name for name in _CAPABILITIES.split()]
    inner = inner_extent()
    ids = [{"containerID": inner.inside, "hostID": inner.outside, "size": inner.size}]
    kinds = ["pid", "mount", "ipc", "uts", "user", *(["cgroup"] if cgroup_namespace else [])]
    return {
        "ociVersion": "1.0.2",
        "hostname": hostname,
        "process": {
            "terminal": False,
            "user": {"uid": 0, "gid": 0, "umask": 0o022},
            "args": args,
            "env": [f"PATH={PATH}", "HOME=/root", "container=irons"],
            "cwd": "/",
            "noNewPrivileges": False,
            # Where memory runs out, a sandbox goes before what serves all of them.
            "oomScoreAdj": 300,
            "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), capabilities),
        },
        "root": {"path": rootfs, "readonly": False},
        "mounts": _mounts(settings, sysview, kit),
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "uidMappings": ids,
            "gidMappings": ids,
            "maskedPaths": list(_MASKED),
            "readonlyPaths": list(_READ_ONLY),
            "seccomp": seccomp.profile(machine),
        },
    }


def _mounts(settings: str, sysview: str, kit: str) -> list[dict[str, Any]]:
    def mount(destination: str, kind: str, source: str, *options: str) -> dict[str, Any]:
        return {"destination": destination, "type": kind, "source": source, "options": list(options)}

    return [
        mount("/proc", "proc", "proc", "nosuid", "noexec", "nodev"),
        mount("/dev", "tmpfs", "tmpfs", "nosuid", "mode=755", "size=64k"),
        mount(
            "/dev/pts",
            "devpts",
            "devpts",
            "nosuid",
            "noexec",
            "newinstance",
            "ptmxmode=0666",
            "mode=0620",
            "gid=5",
            # All devpts of the machine share one count, of which one sandbox must leave some.
            "max=256",
        ),
        mount("/dev/shm", "tmpfs", "shm", "nosuid", "nodev", "mode=1777", "size=256m"),  # noqa: S108 (its own)
        mount("/dev/mqueue", "mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        mount("/run", "tmpfs", "tmpfs", "nosuid", "nodev", "mode=755", "size=64m"),
        # The directory that sshd's unprivileged half changes its root to must exist before sshd starts.
        mount("/run/sshd", "tmpfs", "tmpfs", "nosuid", "nodev", "noexec", "mode=755", "size=4k"),
        *([mount("/sys", "bind", sysview, *_AS_A_VIEW)] if sysview else []),
        mount(CONFIG_DIRECTORY, "bind", settings, "bind", "ro", "nosuid", "nodev", "noexec"),
        *([mount(KIT_DIRECTORY, "bind", kit, "bind", "ro", "nosuid", "nodev")] if kit else []),
        # What the boot steps print, read from outside: bounded, and in no file of the sandbox.
        mount(
            f"{CONFIG_DIRECTORY}/log",
            "tmpfs",
            "tmpfs",
            *("nosuid", "nodev", "noexec", "mode=755", "size=512k", "nr_inodes=16"),
        ),
    ]
