"""An annotated configuration file: every setting with what it is, inactive, at its default or as an example."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from irons.settings.keys import ASK_KEYS, KEYS, LOCAL_KEYS, TABLES, LocalKey

_WIDTH = 96
_HEAD = """\
# Configuration of irons.
#
# Lines that begin with "# " explain. Lines that begin with "#" and a name are settings at their default, or,
# where the default depends on something else, an example. Remove the "#" to set one.
#
# A flag wins over an environment variable, that over the profile in use, and that over the settings above the
# tables. `irons config show` prints each value and where it came from. Keep this file readable by you alone if
# it has a key or a password.
"""


_EXAMPLES = {
    "profiles": ("#[profiles.work]", '#api_url = "https://sandboxes.example.com"'),
    "plugins": ("#[plugins.notify]", '#command = "notify-send"'),
}
"""Tables that are comments: what they may have depends on their name."""


def annotated() -> str:
    """Return the text of a configuration file that sets nothing and names every setting."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    from irons.cli.help.pages import wrap

    def prose(text: str) -> list[str]:
        return [f"# {line}" for line in wrap(text, _WIDTH)]

    yield _HEAD
    yield "# The profile to use. `irons config use NAME` changes it."
    yield '#profile = "default"'
    for name, key in KEYS.items():
        yield ""
        yield from prose(f"{key.help} Variable: {key.env}." if key.env else key.help)
        if key.choices:
            yield from prose(f"One of: {', '.join(key.choices)}.")
        yield _setting(name, key.default, key.example)
    for name, about in TABLES.items():
        yield ""
        if name in _EXAMPLES:
            # A table that is active here would get what `config set` adds below the comments of the next one.
            yield from prose(about)
            yield from _EXAMPLES[name]
            continue
        # The words go below the header: a setting that is added at the top then ends up above it.
        yield f"[{name}]"
        yield from prose(about)
        if name == "aliases":
            yield '#st = "status -o json"'
        if name == "ask":
            yield from _keys(ASK_KEYS, name, prose)
        if name == "local":
            yield from _keys(LOCAL_KEYS, name, prose)
    yield ""


def _keys(keys: Mapping[str, LocalKey], table: str, prose: Callable[[str], list[str]]) -> Iterator[str]:
    for name, key in keys.items():
        yield ""
        if isinstance(key.example, Mapping):
            yield f"[{table}.{name}]"
            yield from prose(key.help)
            yield from (f"#{_toml(each)} = {_toml(value)}" for each, value in key.example.items())
        else:
            yield from prose(key.help)
            yield _setting(name, key.default, key.example)


def _setting(name: str, default: Any, example: Any) -> str:
    return f"#{name} = {_toml(example if default is None else default)}"


def _toml(value: Any) -> str:
    """Return a value as TOML writes it; JSON has the same texts, numbers, truth values and lists of these."""
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)
