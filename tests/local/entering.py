"""A program that runs another one in a cell: `entering.py USER,NET,MOUNT[,...] PROGRAM [ARGUMENT]...`.

The numbers are descriptors, of the cell's namespaces and, after them, of what closes when the program begins.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from irons_local.linux import namespaces


def main(descriptors: Sequence[int], argv: Sequence[str]) -> None:
    """Become root of the cell's user namespace, in its mount and network namespaces, and then the program."""
    for descriptor in descriptors:
        os.set_inheritable(descriptor, False)
    user, net, mount = descriptors[:3]
    namespaces.setns(user, namespaces.NEWUSER)
    namespaces.setns(mount, namespaces.NEWNS)
    namespaces.setns(net, namespaces.NEWNET)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    os.execvpe(argv[0], list(argv), {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})


if __name__ == "__main__":
    main([int(number) for number in sys.argv[1].split(",")], sys.argv[2:])
