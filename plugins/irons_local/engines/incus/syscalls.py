"""The system calls that an instance is refused, as LXC's filters are written (seccomp policy version 2).

They are those of every sandbox: an instance has a network of its own, and socket families that are not namespaced, such as AF_VSOCK,
would lead past it.
"""

from __future__ import annotations

import errno

from irons_local.bundle.seccomp import FAMILIES, REFUSED


def denied() -> str:
    """The value of `security.syscalls.deny`: one rule a line."""
    refused = f"socket errno {errno.EAFNOSUPPORT}"
    # libseccomp compares one argument once per rule.
    families = [
        f"{refused} [0,{max(FAMILIES)},SCMP_CMP_GT]",
        *(f"{refused} [0,{each},SCMP_CMP_EQ]" for each in range(max(FAMILIES)) if each not in FAMILIES),
    ]
    return "\n".join((*families, *(f"{name} errno {errno.EPERM}" for name in REFUSED)))
