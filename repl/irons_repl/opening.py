"""Imports prompt_toolkit for the first prompt, and puts off the parts of it that no first prompt needs.

They take a fifth of the time to the first prompt: the widths of characters that are not ASCII, vi keys with their digraphs, dialogs,
readers of XML and of archives, and OpenSSL's library, which asyncio imports for connections that no prompt makes.
"""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from irons_repl.late_modules import join, put_off

if TYPE_CHECKING:
    from collections.abc import Callable

    from prompt_toolkit.key_binding.key_bindings import KeyBindingsBase

_WIDTHS = "wcwidth"
_VI_KEYS = "prompt_toolkit.key_binding.bindings.vi"
_LATE = (
    "bz2",
    "lzma",
    "ssl",
    "xml.dom.minidom",
    "asyncio.sslproto",
    "prompt_toolkit",
    "prompt_toolkit.shortcuts",
    _WIDTHS,
    _VI_KEYS,
)
_COMPILED = {"bz2": "_bz2", "lzma": "_lzma", "ssl": "_ssl"}
"""Modules of which a Python may lack the compiled part; what imports them then does without them."""

_NEEDED = ("prompt_toolkit.application", "prompt_toolkit.shortcuts.prompt")
"""What a prompt is made of, in this order: the modules import one another in circles, and the first is the way into them."""

NARROW = frozenset(map(chr, range(0x20, 0x7F))) | frozenset("│…")
"""Characters of one column; the first prompt has no others."""


def import_prompt_toolkit() -> None:
    """Import what a prompt is made of. Does nothing where something of it was imported already."""
    if {"asyncio", "prompt_toolkit", _WIDTHS} & sys.modules.keys():
        return
    # A module that is there is imported without the packages around it.
    import_module("xml.dom")
    late = {name: module for name in _LATE if (module := put_off(name, _COMPILED.get(name))) is not None}
    # What is imported now takes these; who comes later finds them missing, and gets what the module has.
    standing_in: dict[str, dict[str, object]] = {
        _WIDTHS: {"wcwidth": _width},
        _VI_KEYS: {name: _once_vi(name) for name in ("load_vi_bindings", "load_vi_search_bindings")},
        # A package has its modules as attributes; this one has a function by the name of a module.
        "prompt_toolkit.shortcuts": {"prompt": None},
    }
    for name, module in late.items():
        vars(module).update(standing_in.get(name, {}))
    join(late)
    try:
        for name in _NEEDED:
            import_module(name)
    finally:
        for name, module in late.items():
            for attribute, value in standing_in.get(name, {}).items():
                now = vars(module)[attribute]
                if now is value or isinstance(now, ModuleType):
                    del vars(module)[attribute]
        join(late)


def import_widths() -> None:
    """Import what measures text that is not ASCII, so that no key waits for it."""
    import wcwidth

    _ = wcwidth.wcwidth


def _width(character: str, *others: object) -> int:
    """Return the columns of a character, as `wcwidth.wcwidth` does."""
    if character in NARROW:
        return 1
    import wcwidth

    return wcwidth.wcwidth(character, *others)


def _once_vi(loader: str) -> Callable[[], KeyBindingsBase]:
    """Return what stands for a function that makes the vi keys: they are made once vi keys are chosen."""

    def load() -> KeyBindingsBase:
        from prompt_toolkit.application import get_app
        from prompt_toolkit.enums import EditingMode
        from prompt_toolkit.key_binding.key_bindings import DynamicKeyBindings

        made: list[KeyBindingsBase] = []

        def chosen() -> KeyBindingsBase | None:
            if not made and get_app().editing_mode == EditingMode.VI:
                made.append(getattr(sys.modules[_VI_KEYS], loader)())
            return made[0] if made else None

        return DynamicKeyBindings(chosen)

    return load
