"""Directories of manual pages, which lean images lack and scripts of Debian's packages put links in."""

from __future__ import annotations

MAN_PAGES = tuple(f"usr/share/man/man{section}" for section in range(1, 9))
"""Directories that scripts of Debian's packages put links in, and that lean images lack."""
