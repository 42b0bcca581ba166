"""Old name of `irons_local.forkserver.confine`, kept for one release: a keeper that runs since before the move starts it."""

from __future__ import annotations

import sys

from irons_local.forkserver.confine import main

if __name__ == "__main__":
    sys.exit(main())
