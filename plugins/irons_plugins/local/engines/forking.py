"""Old name of `irons_local.engines.namespace.forkserver`, kept for one release: a control plane from before the move starts it."""

from __future__ import annotations

import sys

from irons_local.engines.namespace.forkserver import main

if __name__ == "__main__":
    sys.exit(main())
