"""What an engine or a cell could not do, as one word for programs and one line for people."""

from __future__ import annotations


class EngineError(Exception):
    """An engine could not do what it was asked.

    Attributes:
        code: a word for programs, one of `CODES`.
        message: one line for people: what happened and why.
        hint: what to do next, or an empty string.
    """

    CODES = ("absent", "exists", "state", "image", "input", "limit", "machine", "timeout", "failed")

    def __init__(self, code: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.hint = hint


class CellError(Exception):
    """A cell could not be made, found or entered; the message is one line for people."""
