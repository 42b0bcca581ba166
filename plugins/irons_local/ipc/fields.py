"""What the fields of a message hold: each check takes what arrived and returns it, or raises `BadMessageError`."""

from __future__ import annotations

import re
from math import inf
from typing import Any, Final

from irons import wire_values

_CELL = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}", re.ASCII)
SANDBOX_ID = re.compile(wire_values.SANDBOX_ID)


class BadMessageError(Exception):
    """A message lacks something, or carries something invalid; the text says what."""


class UnknownMessageError(BadMessageError):
    """The link has no such message."""


class Untold:
    """Stands for what a message does not say, where None says something."""


UNTOLD: Final = Untold()


def cell(value: object) -> str:
    """The name of a cell."""
    if not isinstance(value, str) or not _CELL.fullmatch(value):
        raise BadMessageError(f"{value!r} is not a cell")
    return value


def sandbox_id(value: object) -> str:
    """The name of a cell that may be made: the sandbox's id."""
    if not isinstance(value, str) or not SANDBOX_ID.fullmatch(value):
        raise BadMessageError(f"{value!r} is not the name of a cell")
    return value


def text(value: object) -> str:
    """Any text."""
    if not isinstance(value, str):
        raise BadMessageError(f"{value!r} is not a text")
    return value


def number(value: object) -> int:
    """A whole number, 0 or more."""
    if type(value) is not int or value < 0:
        raise BadMessageError(f"{value!r} is not a number")
    return value


def seconds(value: object) -> float:
    """A time, more than 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < inf:
        raise BadMessageError(f"{value!r} is not a number of seconds")
    return float(value)


def port(value: object) -> int:
    """A TCP port."""
    if type(value) is not int or not 0 < value < 65_536:
        raise BadMessageError(f"{value!r} is not a port")
    return value


def flag(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise BadMessageError(f"{value!r} is neither true nor false")
    return value


def an_object(value: object) -> dict[str, Any]:
    """An object."""
    if not isinstance(value, dict):
        raise BadMessageError(f"{value!r} is not an object")
    return value


def a_list(value: object) -> list[Any]:
    """A list."""
    if not isinstance(value, list):
        raise BadMessageError(f"{value!r} is not a list")
    return value


def cells(value: object) -> list[str]:
    """Names of cells."""
    return [cell(each) for each in a_list(value)]


def numbers(value: object) -> list[int]:
    """Whole numbers, 0 or more."""
    return [number(each) for each in a_list(value)]


def counts(value: object) -> dict[str, int]:
    """What a worker says of cells: what is not a number above 0 is passed over."""
    return {cell: count for cell, count in an_object(value).items() if type(count) is int and count > 0}


def setting(value: object) -> dict[str, Any] | None:
    """An object, or None."""
    return None if value is None else an_object(value)
