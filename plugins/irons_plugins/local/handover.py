"""Old place of `irons_local/daemon/handover.py`, kept for one release: a kept SSH connection waits with a command that names it.

It is run without `site`, so that nothing of irons can be imported here.
"""

from __future__ import annotations

import runpy
from pathlib import Path

if __name__ == "__main__":
    runpy.run_path(str(Path(__file__).parents[2] / "irons_local/daemon/handover.py"), run_name="__main__")
