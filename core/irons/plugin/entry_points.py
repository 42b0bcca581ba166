"""Whether any installed distribution has an entry point group, found without the costly import of `importlib.metadata`."""

from __future__ import annotations

import os
from collections.abc import Iterable


def any_in_group(group: str, path: Iterable[str]) -> bool:
    """Tell whether a distribution on `path` names `[group]` in its entry points; a zip or unreadable place counts as yes."""
    header = f"[{group}]".encode()
    for place in path:
        try:
            with os.scandir(place or ".") as entries:
                names = [e.path for e in entries if e.name.endswith((".dist-info", ".egg-info"))]
        except FileNotFoundError:
            continue
        except OSError:
            return True
        for name in names:
            try:
                with open(f"{name}/entry_points.txt", "rb") as file:  # noqa: PTH123 - pathlib would cost more than the scan
                    if header in file.read():
                        return True
            except OSError:
                continue
    return False
