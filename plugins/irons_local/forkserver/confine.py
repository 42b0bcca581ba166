"""Starts the gateway without the rights it does not need: `python -m irons_local.forkserver.confine MODULE`.

As root this process first becomes a user of its own that may read files and nothing else, since that user may be
unable to read the Python files of root's environment. Where root itself lacks that right, as in a container, the user
may also write files. Then it imports the module, with the code of third parties, and gives up that right too. Only
then is anything read that comes from outside.

With the descriptor of a link in `IRONS_NURSERY` it is a warm process, from which the keeper has workers forked; else
it runs the module itself.
"""

from __future__ import annotations

import codecs
import importlib
import os
import sys
from contextlib import suppress

from irons_local.forkserver import server
from irons_local.linux import namespaces
from irons_local.linux.idmap import PRIVATE_BASE, PRIVATE_COUNT

GATEWAY_ID = PRIVATE_BASE + PRIVATE_COUNT
"""User and group of root's gateway: the first ids above those of sandboxes, which nothing else has."""

_LAST_CAPABILITY = 63
CODECS = ("ascii", "idna", "latin-1", "punycode", "utf-8")
"""Python imports a codec at its first use, which would be too late."""


def become(identity: int) -> None:
    """Become another user and group for good, and keep of root's rights only the one to read files.

    Where root lacks that right, the one to read and write files is kept instead; where it lacks both, none.

    Raises:
        OSError: the kernel refuses.
    """
    for capability in range(_LAST_CAPABILITY + 1):
        with suppress(OSError):  # the kernel knows fewer
            namespaces.prctl(namespaces.PR_CAPBSET_DROP, capability)
    os.setgroups([])
    os.setresgid(identity, identity, identity)
    namespaces.prctl(namespaces.PR_SET_KEEPCAPS, 1)
    os.setresuid(identity, identity, identity)
    # Docker and podman give the root of a container the second one only.
    for right in (namespaces.CAP_DAC_READ_SEARCH, namespaces.CAP_DAC_OVERRIDE):
        with suppress(PermissionError):
            namespaces.capset(right)
            break
    else:
        namespaces.capset()
    namespaces.prctl(namespaces.PR_SET_KEEPCAPS, 0)


def confine() -> None:
    """Give up every capability, and what this process could gain; others of the same user can't look into it.

    Raises:
        OSError: the kernel refuses.
    """
    namespaces.capset()
    namespaces.prctl(namespaces.PR_SET_NO_NEW_PRIVS, 1)
    namespaces.prctl(namespaces.PR_SET_DUMPABLE, 0)
    os.umask(0o077)


def main() -> int:
    """Import the module that the command line names, confine this process, and run the module's `main`."""
    if os.geteuid() == 0:
        become(GATEWAY_ID)
    for name in CODECS:
        codecs.lookup(name)
    module = importlib.import_module(f"{sys.argv[1]}.__main__")
    confine()
    descriptor = os.environ.pop("IRONS_NURSERY", None)
    if descriptor is not None:
        return server.serve(int(descriptor), module.main)
    return int(module.main() or 0)


if __name__ == "__main__":
    sys.exit(main())
