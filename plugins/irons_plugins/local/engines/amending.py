"""Old name of `irons_local.engines.namespace.amend`, kept for one release: a control plane from before the move starts it."""

from __future__ import annotations

from irons_local.engines.namespace.amend import main

if __name__ == "__main__":
    main()
