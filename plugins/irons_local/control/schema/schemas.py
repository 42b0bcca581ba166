"""What requests and answers look like, as JSON Schema (OpenAPI 3.1); what is published is also what is checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from irons_local.control.schema.errors import bad

Schema = Mapping[str, Any]

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "null": (type(None),),
}
_CALLED = {
    "object": "an object",
    "array": "a list",
    "string": "a text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a number",
    "null": "null",
}


def text(most: int, **more: Any) -> Schema:
    """A text of at most so many characters."""
    return {"type": "string", "maxLength": most, **more}


def listing(items: Schema, most: int) -> Schema:
    """A list of at most so many items."""
    return {"type": "array", "items": items, "maxItems": most}


def record(properties: Mapping[str, Schema], required: tuple[str, ...] = ()) -> Schema:
    """An object with these members and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": list(required),
        "additionalProperties": False,
    }


def optional(schema: Schema) -> Schema:
    """The same, or null."""
    return {**schema, "type": [schema["type"], "null"]}


def check(schema: Schema, value: Any, where: str = "") -> None:
    """Hold a value that came in as JSON to a schema.

    Args:
        schema: made of the functions above, and `enum`, `minimum`, `maximum`.
        value: what `json.loads` gave.
        where: what the value is called in the text of an error; "" is the body itself.

    Raises:
        HttpError: 400, naming the first place that does not fit.
    """
    called = where or "the body"
    given = schema.get("type")
    types: list[str] = [given] if isinstance(given, str) else list(given or ())
    if types and not any(_is(value, each) for each in types):
        raise bad(f"{called} must be {' or '.join(_CALLED[each] for each in types)}")
    choices = schema.get("enum")
    if choices is not None and value is not None and value not in choices:
        raise bad(f"{called} must be one of {', '.join(map(str, choices))}")
    if isinstance(value, str):
        _check_text(schema, value, called)
    elif isinstance(value, bool):
        return
    elif isinstance(value, int | float):
        _check_number(schema, value, called)
    elif isinstance(value, list):
        if len(value) > schema.get("maxItems", math.inf):
            raise bad(f"{called} has more than {schema['maxItems']} items")
        for index, item in enumerate(value):
            check(schema.get("items", {}), item, f"{called}[{index}]")
    elif isinstance(value, dict):
        _check_members(schema, value, where)


def _is(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _TYPES[name])


def _check_text(schema: Schema, value: str, called: str) -> None:
    if len(value) > schema.get("maxLength", math.inf):
        raise bad(f"{called} is longer than {schema['maxLength']} characters")
    if len(value) < schema.get("minLength", 0):
        raise bad(f"{called} is empty")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise bad(f"{called} is not valid Unicode") from None
    if "\0" in value:
        raise bad(f"{called} holds a NUL character")


def _check_number(schema: Schema, value: float, called: str) -> None:
    low, high = schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
    if not low <= value <= high:
        raise bad(f"{called} must be between {low} and {high}")


def _check_members(schema: Schema, value: Mapping[str, Any], where: str) -> None:
    called = where or "the body"
    properties: Mapping[str, Schema] = schema.get("properties", {})
    if len(value) > schema.get("maxProperties", math.inf):
        raise bad(f"{called} has more than {schema['maxProperties']} members")
    for name in schema.get("required", ()):
        if name not in value:
            raise bad(f"{called} has no {name!r}")
    for name, item in value.items():
        if name in properties:
            check(properties[name], item, f"{where}.{name}" if where else name)
        elif isinstance(schema.get("additionalProperties"), Mapping):
            check(schema["additionalProperties"], item, f"{called}[{name[:60]!r}]")
        elif schema.get("additionalProperties") is False:
            known = ", ".join(properties)
            raise bad(f"{called} has an unknown member {name[:60]!r}; known are {known}")
