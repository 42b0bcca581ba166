"""The functions that a command names as `"module:function"`: imported and compared with what they will be called with."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

from irons.command import Command


def broken(command: Command) -> Iterator[str]:
    """Yield what is wrong with the functions that a command names, one sentence each; their modules are imported."""
    handler, fault = found("run", command.run)
    if fault:
        yield fault
    elif handler is not None:
        yield from _keywords(command, handler)
    view = command.view
    named = [("view line", view.line), ("view live", view.live)]
    for column in view.columns:
        named += [(f"column {column.key!r} {field}", getattr(column, field)) for field in _OF_COLUMNS]
    for field, name in named:
        if name:
            _, fault = found(field, name)
            if fault:
                yield fault


_OF_COLUMNS = ("text", "table", "style")


def found(field: str, name: str) -> tuple[Any, str]:
    """Return the function of a `"module:function"`, and what is wrong with it; `field` is what names it."""
    module, _, attribute = name.partition(":")
    try:
        function = getattr(import_module(module), attribute)
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a stranger's module may raise anything, SystemExit included
        return None, f"{field}={name!r} names nothing: {type(error).__name__}: {error}"
    return (function, "") if callable(function) else (None, f"{field}={name!r} is not a function")


def _keywords(command: Command, handler: Any) -> Iterator[str]:
    import inspect

    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(None, **dict.fromkeys(command.keywords))
    except TypeError as error:
        given = ", ".join(sorted(command.keywords)) or "none"
        yield f"run={command.run!r} does not take its parameters ({given}): {error}"
