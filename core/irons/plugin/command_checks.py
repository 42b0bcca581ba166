"""Faults of a plugin's commands that types would show: found when the plugin is loaded, before a person meets them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, get_args

from irons.command import Arg, Column, Command, Flag, Kind, Opt, Pace, ValueType, View

KINDS: tuple[str, ...] = get_args(Kind)
"""What a parameter's value can be without a plugin that adds to it."""

_TAKES = ("1", "?", "*", "+", "--")
_CUTS = ("", "start", "end")
_HIDES = ("", "empty", "same")


def faults(command: Command, kinds: Collection[str] = KINDS) -> Iterator[str]:
    """Yield what is wrong with a command, one sentence each.

    Args:
        command: The command, as a plugin returned it.
        kinds: The kinds that a parameter may have.
    """
    if not _texts(command.path, least=0):
        yield f"path is a tuple of words, not {command.path!r}"
        return
    name = f"command {command.name!r}"
    for fault in _own(command):
        yield f"{name}: {fault}"
    seen: dict[str, str] = {}
    for param in command.params:
        if not isinstance(param, Arg | Opt | Flag):
            yield f"{name}: params has {type(param).__name__}, not Arg, Opt or Flag"
            continue
        if not isinstance(param, Arg) and not _flags(param.flags):
            yield f"{name}: flags is a tuple of words that begin with a dash, not {param.flags!r}"
            continue
        shown = param.name if isinstance(param, Arg) else max(param.flags, key=len)
        for fault in _of_parameter(param, kinds):
            yield f"{name}, {shown}: {fault}"
        if param.dest in seen:
            yield f"{name}: {seen[param.dest]} and {shown} have the same keyword {param.dest!r}"
        seen[param.dest] = shown
    if command.scope and command.scope not in seen:
        yield f"{name}: scope names no parameter: {command.scope!r}"


def _own(command: Command) -> Iterator[str]:
    if not _names_function(command.run):
        yield f"run is 'module:function', not {command.run!r}"
    yield from _choice("pace", command.pace, get_args(Pace))
    if not isinstance(command.view, View):
        yield f"view is a View, not {type(command.view).__name__}"
        return
    for column in command.view.columns:
        if not isinstance(column, Column):
            yield f"view has {type(column).__name__}, not Column"
            continue
        yield from _choice(f"column {column.key!r}, cut", column.cut, _CUTS)
        yield from _choice(f"column {column.key!r}, hide", column.hide, _HIDES)


def _of_parameter(param: Arg | Opt | Flag, kinds: Collection[str]) -> Iterator[str]:
    if not param.dest.isidentifier():
        yield f"its keyword would be {param.dest!r}, which Python does not take"
    if isinstance(param, Flag):
        if param.pace is not None:
            yield from _choice("pace", param.pace, get_args(Pace))
        return
    yield from _choice("kind", param.kind, kinds)
    if not _texts(param.choices, least=0):
        yield f"choices is a tuple of words, not {param.choices!r}"
    if isinstance(param, Arg):
        yield from _choice("takes", param.takes, _TAKES)
    else:
        yield from _choice("type", param.type, get_args(ValueType))


def _choice(field: str, value: object, known: Collection[str]) -> Iterator[str]:
    if value in known:
        return
    from difflib import get_close_matches

    near = get_close_matches(str(value), sorted(known), n=1)
    yield f"unknown {field} {value!r}; " + (
        f"did you mean {near[0]!r}?" if near else f"it is one of {', '.join(map(repr, known))}"
    )


def _texts(value: Any, *, least: int = 1) -> bool:
    return isinstance(value, tuple) and len(value) >= least and all(isinstance(word, str) for word in value)


def _flags(value: Any) -> bool:
    return _texts(value) and all(flag.startswith("-") and flag.strip("-") for flag in value)


def _names_function(value: object) -> bool:
    module, _, function = value.partition(":") if isinstance(value, str) else ("", "", "")
    return bool(module) and function.isidentifier()
