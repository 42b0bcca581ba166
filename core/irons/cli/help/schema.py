"""A command's parameters as JSON Schema (2020-12), made of the data that `--help` is made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from irons.command import Arg, Command, Flag, Opt, Param

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_TYPES: Mapping[str, Any] = {
    "text": "string",
    "int": "integer",
    "float": "number",
    "seconds": ["number", "string"],
    "size": ["integer", "string"],
    "time": "string",
}
"""The JSON types of an option's value; a duration or size is a number, or a text such as `5m` or `2G`."""


def schema_of(command: Command, params: Iterable[Param] | None = None) -> dict[str, Any]:
    """Return the schema of an object with a command's parameters by their names.

    Args:
        command: The command.
        params: The parameters to have; by default all of them.
    """
    chosen = command.params if params is None else tuple(params)
    return {
        "$schema": DIALECT,
        "title": f"irons {command.name}",
        "description": command.help,
        "type": "object",
        "properties": {param.dest: _property(param) for param in chosen},
        "required": [param.dest for param in chosen if _is_needed(command, param)],
        "additionalProperties": False,
    }


def _is_needed(command: Command, param: Param) -> bool:
    """Tell whether nothing else can stand for a parameter: neither an option, nor the sandbox in use, nor all of them."""
    return (
        isinstance(param, Arg)
        and param.takes in ("1", "+")
        and not param.instead
        and param.dest != command.scope
    )


def _property(param: Param) -> dict[str, Any]:
    described = {"description": param.help}
    if isinstance(param, Flag):
        return {**described, "type": "boolean", "default": False}
    one: dict[str, Any] = {"type": _TYPES[param.type] if isinstance(param, Opt) else "string"}
    if param.choices:
        one["enum"] = list(param.choices)
    if isinstance(param, Opt):
        if param.many:
            return {**described, "type": "array", "items": one}
        default = {} if param.default is None else {"default": param.default}
        return {**described, **one, **default}
    if param.takes in ("1", "?"):
        return {**described, **one}
    least = {"minItems": 1} if param.takes == "+" else {}
    return {**described, "type": "array", "items": one, **least}
