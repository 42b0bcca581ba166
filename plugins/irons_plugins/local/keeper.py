"""Old name of `irons_local.keeper.keeper`, kept for one release: a script or a unit may start it."""

from __future__ import annotations

import sys

from irons_local.keeper.keeper import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
