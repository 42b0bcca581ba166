"""Files that go on from a path being typed."""

from __future__ import annotations

import os

from irons.record import NamedTuple
from irons_repl.line.fuzzy import LIMIT


class FileMatch(NamedTuple):
    """One file: the whole path as it would be typed, its last part for the menu, and what it is."""

    word: str
    shown: str
    about: str = ""


def files_like(typed: str, limit: int = LIMIT, *, folders: bool = False) -> list[FileMatch]:
    """Return files whose path begins with `typed`, directories with a slash after them; hidden ones where a dot is typed.

    Args:
        typed: The path so far.
        limit: The most that are returned.
        folders: Directories alone.
    """
    folder, _, begins = typed.rpartition("/")
    folder = f"{folder}/" if "/" in typed else ""
    found: list[FileMatch] = []
    try:
        with os.scandir(os.path.expanduser(folder) or ".") as entries:  # noqa: PTH111 - `~no one` must not raise
            for entry in entries:
                name = entry.name
                if not name.startswith(begins) or (name.startswith(".") and not begins.startswith(".")):
                    continue
                slash = "/" if _is_folder(entry) else ""
                if folders and not slash:
                    continue
                found.append(FileMatch(f"{folder}{name}{slash}", f"{name}{slash}", "folder" if slash else ""))
                if len(found) >= limit * 10:
                    break
    except OSError:
        return []
    return sorted(found)[:limit]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
