"""What keeps a cell from being made, in one line, with the `irons doctor` check that explains it."""

from __future__ import annotations


class Problem(Exception):
    """Something this machine lacks.

    Attributes:
        check: the name of the `irons doctor` check that says what to do; empty where none does.
    """

    def __init__(self, message: str, check: str = "") -> None:
        super().__init__(f"{message} (see `irons doctor`: {check})" if check else message)
        self.check = check
