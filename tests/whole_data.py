"""Remove the coverage data that a killed process left unfinished: `python tests/whole_data.py FILE…` before they are combined.

Tests kill processes at any moment, also while one records what it covered; such a file says nothing, and `coverage combine`
would stop at it or spoil the whole with it.
"""

from __future__ import annotations

import sqlite3
import sys
from contextlib import closing
from pathlib import Path


def is_whole(path: Path) -> bool:
    """Tell whether a file is a complete and consistent database of coverage."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
            sound = database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            return sound and database.execute("SELECT count(*) FROM coverage_schema").fetchone() == (1,)
    except sqlite3.Error:
        return False


def main(names: list[str]) -> None:
    """Remove those of the files that are not whole, and say how many there were."""
    cut = [path for path in map(Path, names) if not is_whole(path)]
    for path in cut:
        path.unlink(missing_ok=True)
    if cut:
        print(
            f"Left out {len(cut)} of {len(names)} files of coverage, cut short when their process was killed."
        )


if __name__ == "__main__":
    main(sys.argv[1:])
