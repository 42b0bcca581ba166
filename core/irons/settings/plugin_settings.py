"""Settings of plugins: `[plugins.NAME]` of the configuration file, declared by the hook `irons_settings`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from irons.errors import ConfigError
from irons.record import NamedTuple
from irons.settings.settings import Value

UNKNOWN = "config, of no plugin that is loaded"
"""The source of a setting in the file that no plugin declares."""

_TYPES: Mapping[type, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list of texts",
}
_WORDS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class PluginSetting(NamedTuple):
    """A setting that a plugin declares.

    Attributes:
        name: Its key in `[plugins.NAME]`.
        help: What it is, in one sentence.
        default: Its value where nothing sets it.
        type: `str`, `int`, `float`, `bool`, or `list` (of texts).
        choices: The words that it may be; any text where there are none.
        env: A variable that comes before the file; empty where there is none.
        secret: Whether `config show` hides it.
    """

    name: str
    help: str = ""
    default: Any = None
    type: type = str
    choices: tuple[str, ...] = ()
    env: str = ""
    secret: bool = False


def faults(declared: Iterable[object]) -> Iterator[str]:
    """Yield what is wrong with what a plugin declares."""
    seen: set[str] = set()
    for setting in declared:
        if not isinstance(setting, PluginSetting):
            yield f"irons_settings returned {type(setting).__name__}, not PluginSetting"
        elif not isinstance(setting.name, str) or not setting.name.isidentifier():
            yield f"setting {setting.name!r} is not a name"
        elif setting.type not in _TYPES:
            yield f"setting {setting.name}: unknown type {setting.type!r}; it is one of str, int, float, bool, list"
        elif setting.name in seen:
            yield f"setting {setting.name} is declared twice"
        else:
            seen.add(setting.name)


def values(
    plugin: str, declared: Iterable[PluginSetting], table: object, env: Mapping[str, str]
) -> dict[str, Value]:
    """Return the declared settings, each with its value and where that came from.

    Args:
        plugin: The plugin's name.
        declared: What it declares.
        table: What the file has at `[plugins.NAME]`.
        env: The environment.

    Raises:
        ConfigError: A value is of another type, or not one of the choices.
    """
    stored = table if isinstance(table, Mapping) else {}
    found: dict[str, Value] = {}
    for setting in declared:
        if setting.env and env.get(setting.env):
            found[setting.name] = Value(from_text(plugin, setting, env[setting.env]), setting.env)
        elif setting.name in stored:
            found[setting.name] = Value(_checked(plugin, setting, stored[setting.name]), "config")
        else:
            found[setting.name] = Value(setting.default, "default")
    return found


def as_stored(setting: PluginSetting, table: object, env: Mapping[str, str]) -> Value:
    """Return the value of a setting that `values` refuses as it was given; the source says what it is not."""
    wrong = f"not one of {', '.join(setting.choices)}" if setting.choices else f"not {_TYPES[setting.type]}"
    if setting.env and env.get(setting.env):
        return Value(env[setting.env], f"{setting.env}, {wrong}")
    stored = table if isinstance(table, Mapping) else {}
    return Value(stored.get(setting.name), f"config, {wrong}")


def from_text(plugin: str, setting: PluginSetting, text: str) -> Any:
    """Return a setting's value from a word of a command line or a variable; a list's texts are separated by commas.

    Raises:
        ConfigError: It is invalid.
    """
    if setting.type is bool:
        value = _WORDS.get(text.lower())
        if value is None:
            raise _wrong(plugin, setting, text)
        return value
    if setting.type is list:
        return [part.strip() for part in text.split(",") if part.strip()]
    if setting.type in (int, float):
        try:
            return setting.type(text)
        except ValueError:
            raise _wrong(plugin, setting, text) from None
    return _checked(plugin, setting, text)


def _checked(plugin: str, setting: PluginSetting, value: Any) -> Any:
    if setting.type is float and type(value) is int:
        return float(value)
    texts = setting.type is not list or (
        isinstance(value, list) and all(isinstance(each, str) for each in value)
    )
    if type(value) is not setting.type or not texts:
        raise _wrong(plugin, setting, value)
    if setting.choices and value not in setting.choices:
        raise ConfigError(
            f"plugins.{plugin}.{setting.name} is one of {', '.join(setting.choices)}, not {value!r}"
        )
    return value


def _wrong(plugin: str, setting: PluginSetting, value: object) -> ConfigError:
    shown = "" if setting.secret else f", not {value!r}"
    return ConfigError(f"plugins.{plugin}.{setting.name} is {_TYPES[setting.type]}{shown}")
