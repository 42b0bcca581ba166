"""Old name of `irons_local.gateway.__main__`, kept for one release: a keeper from before the move names it."""

from __future__ import annotations

import sys

from irons_local.gateway.__main__ import main

if __name__ == "__main__":
    sys.exit(main())
