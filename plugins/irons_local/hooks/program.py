"""Runs a program of the user's without the daemon's rights: `python -m irons_local.hooks.program COMMAND ARGUMENT…`.

As root it becomes the user of root's gateway; then it gives up every capability, and becomes the program.
"""

from __future__ import annotations

import os
import sys

from irons_local.forkserver.confine import GATEWAY_ID, become, confine


def main() -> int:
    """Confine this process and become the program; 127 where that cannot be started."""
    if os.geteuid() == 0:
        become(GATEWAY_ID)
    confine()
    try:
        os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - the user's own words, and no shell
    except OSError as error:
        sys.stderr.write(f"{sys.argv[1]}: {error.strerror}\n")
        return 127


if __name__ == "__main__":
    sys.exit(main())
