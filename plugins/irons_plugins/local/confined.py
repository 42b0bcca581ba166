"""Starts the gateway with every right it does not need given up: `python -m irons_plugins.local.confined MODULE`.

The module's code is imported first and the rights are dropped then, before anything from outside is read: as root
the gateway becomes a user of its own, who may well be unable to read the Python files of root's own environment.
"""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import suppress

from irons_plugins.local import namespaces
from irons_plugins.local.idmap import PRIVATE_BASE, PRIVATE_COUNT

GATEWAY_ID = PRIVATE_BASE + PRIVATE_COUNT
"""User and group of root's gateway: the first ids above those of sandboxes, which nothing else has."""

_LAST_CAPABILITY = 63


def confine(identity: int | None) -> None:
    """Give up what this process could do beyond using its descriptors and its directory.

    Args:
        identity: user and group to become for good; None stays the same user, and is for ordinary ones.

    Raises:
        OSError: the kernel refuses.
    """
    if identity is not None:
        for capability in range(_LAST_CAPABILITY + 1):
            with suppress(OSError):  # the kernel knows fewer
                namespaces.prctl(namespaces.PR_CAPBSET_DROP, capability)
        os.setgroups([])
        os.setresgid(identity, identity, identity)
        # From here on there are no capabilities: user 0 is left and none were made to be kept.
        os.setresuid(identity, identity, identity)
    namespaces.prctl(namespaces.PR_SET_NO_NEW_PRIVS, 1)
    os.umask(0o077)


def main() -> int:
    """Import the module that the command line names, confine this process, and run the module's `main`."""
    # The resolver's codec is looked up by name at first use, which is too late.
    importlib.import_module("encodings.idna")
    module = importlib.import_module(f"{sys.argv[1]}.__main__")
    confine(GATEWAY_ID if os.geteuid() == 0 else None)
    return int(module.main() or 0)


if __name__ == "__main__":
    sys.exit(main())
