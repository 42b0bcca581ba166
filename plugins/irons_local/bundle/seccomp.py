"""The system call filter of a sandbox, in the OCI runtime specification's words (config-linux.md, "Seccomp").

Everything is allowed but what reaches past the namespaces: socket families that are not namespaced (AF_VSOCK
reached the machine's hypervisor without this), and calls that speak to the kernel as a whole.
"""

from __future__ import annotations

import errno
import socket
from typing import Any

FAMILIES = tuple(
    int(family) for family in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)
)

NETLINK_REFUSED = (6, 12)
"""NETLINK_XFRM and NETLINK_NETFILTER (netlink(7)): a sandbox's root has no rights over its network, so they serve only
a nested user namespace, to which they open the part of the kernel that has been broken out of most often."""

REFUSED = (
    "acct",
    "add_key",
    "bpf",
    "clock_settime",
    "clock_settime64",
    "delete_module",
    "fanotify_init",
    "finit_module",
    "init_module",
    "io_uring_enter",
    "io_uring_register",
    "io_uring_setup",
    "ioperm",
    "iopl",
    "kexec_file_load",
    "kexec_load",
    "keyctl",
    "lookup_dcookie",
    "mbind",
    "migrate_pages",
    "move_pages",
    "nfsservctl",
    "open_by_handle_at",
    "perf_event_open",
    "quotactl",
    "quotactl_fd",
    "reboot",
    "request_key",
    "settimeofday",
    "swapoff",
    "swapon",
    "syslog",
    "userfaultfd",
)

# Where a kernel also runs the programs of another architecture, its calls are filtered by the same rules: naming
# the native one alone would kill those programs instead.
_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
    "armv7l": ("SCMP_ARCH_ARM",),
    "ppc64le": ("SCMP_ARCH_PPC64LE",),
    "s390x": ("SCMP_ARCH_S390X", "SCMP_ARCH_S390"),
    "riscv64": ("SCMP_ARCH_RISCV64",),
}


def profile(machine: str) -> dict[str, Any]:
    """The filter for a machine as `uname -m` names it."""
    families = [_refuse_family("SCMP_CMP_GT", max(FAMILIES))]
    # libseccomp compares one argument once per rule, so that "none of these" is spelled out value by value.
    families += [
        _refuse_family("SCMP_CMP_EQ", value) for value in range(max(FAMILIES)) if value not in FAMILIES
    ]
    families += [_refuse_netlink(protocol) for protocol in NETLINK_REFUSED]
    calls = {"names": list(REFUSED), "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EPERM}
    known = {"architectures": list(_ARCHITECTURES[machine])} if machine in _ARCHITECTURES else {}
    return {"defaultAction": "SCMP_ACT_ALLOW", **known, "syscalls": [*families, calls]}


def _refuse_family(operator: str, value: int) -> dict[str, Any]:
    return {
        "names": ["socket", "socketpair"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": errno.EAFNOSUPPORT,
        "args": [{"index": 0, "value": value, "op": operator}],
    }


def _refuse_netlink(protocol: int) -> dict[str, Any]:
    return {
        "names": ["socket"],
        "action": "SCMP_ACT_ERRNO",
        "errnoRet": errno.EPROTONOSUPPORT,
        "args": [
            {"index": 0, "value": int(socket.AF_NETLINK), "op": "SCMP_CMP_EQ"},
            # The kernel takes an int; a comparison of the whole register would be passed by with a bit above it.
            {"index": 2, "value": 0xFFFF_FFFF, "valueTwo": protocol, "op": "SCMP_CMP_MASKED_EQ"},
        ],
    }
