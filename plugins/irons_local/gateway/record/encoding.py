"""Writes the fields of a record as JSON."""

from __future__ import annotations

import json
import json.encoder
from collections.abc import Callable, Mapping
from typing import Any


def encoder() -> Callable[[Mapping[str, Any]], str]:
    """What writes a record's fields as one line of JSON, in ASCII and without spaces.

    The standard library makes an encoder in C for each call of `encode`, which takes longer than the encoding of a
    record. Where the interpreter has that encoder (it is not documented), one is made for all records.
    """
    plain = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"))
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:
        return plain.encode
    text = json.encoder.encode_basestring_ascii
    pieces: Callable[[Mapping[str, Any], int], tuple[str, ...]]
    pieces = make(None, plain.default, text, None, ":", ",", False, False, True)

    def encode(fields: Mapping[str, Any]) -> str:
        return "".join(pieces(fields, 0))

    return encode
