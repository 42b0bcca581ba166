"""What the value of a setting must be, and what `config.toml` may have; anything else is refused with the nearest key."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from irons.errors import ConfigError
from irons.settings.keys import ASK_KEYS, KEYS, LOCAL_KEYS, TABLES

_KINDS: dict[type, str] = {str: "text", int: "a whole number", list: "a list", bool: "true or false"}


def typed(name: str, raw: object) -> str | float:
    """Return a setting's raw value as what it is: text, one of its choices, or seconds.

    Raises:
        ConfigError: It is invalid.
    """
    key = KEYS[name]
    if key.type is float:
        try:
            number = float(str(raw))
        except ValueError:
            raise ConfigError(f"{name} takes a number of seconds, not {raw!r}") from None
        if not 0 < number < 1e7:
            raise ConfigError(f"{name} takes a number of seconds above 0, not {raw!r}")
        return number
    if not isinstance(raw, str):
        # What stands where a key belongs may be one.
        raise ConfigError(f"{name} takes text" if name == "api_key" else f"{name} takes text, not {raw!r}")
    if name == "api_url":
        _check_url(raw)
    # Plugins bring more formats, and are not known here.
    if key.choices and raw not in key.choices and name != "output":
        raise ConfigError(f"{name} is one of {', '.join(key.choices)}, not {raw!r}")
    return raw


def _check_url(url: str) -> None:
    """Refuse secrets in a URL without showing them: messages and `config show` name it, and so does the server's own log."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in ("http", "https"):
        return
    authority = rest.partition("/")[0]
    if "@" in authority or "?" in rest or "#" in rest:
        raise ConfigError(
            "an API URL carries no user, password, query or fragment", hint="set the key by IRONS_API_KEY"
        )


def not_toml(path: Path, error: Exception) -> ConfigError:
    """Return what is reported of a file that can't be read, with the way out."""
    # Tomllib says `Cannot declare ('local',) twice (at line 9, column 7)`.
    twice = "put the lines below it where that table begins first, or " if " twice" in str(error) else ""
    hint = f"{twice or 'fix it by hand, or '}move it away: mv {path} {path}.bad"
    return ConfigError(f"{path} is not TOML: {error}", hint=hint)


def check(document: Mapping[str, Any], path: Path) -> None:
    """Refuse what is not a setting, with the nearest one that is, and values that are invalid.

    Raises:
        ConfigError: There is such a thing in the file.
    """
    for name, value in document.items():
        _known(name, (*KEYS, "profile", *TABLES), path, "")
        if name in TABLES:
            _table(value, path, name)
        elif name == "profile":
            if not isinstance(value, str):
                raise ConfigError(
                    f"profile in {path} is the name of one",
                    hint="settings of a profile belong in [profiles.NAME]",
                )
        else:
            _checked(name, value, path, "")
    for profile, table in document.get("profiles", {}).items():
        _table(table, path, f"profiles.{profile}")
        for name, value in table.items():
            _known(name, KEYS, path, f"profiles.{profile}.")
            _checked(name, value, path, f"profiles.{profile}.")
    for name, value in document.get("aliases", {}).items():
        if not isinstance(value, str):
            raise ConfigError(f"aliases.{name} in {path} is text, not {value!r}")
    for name, value in document.get("ask", {}).items():
        _known(name, ASK_KEYS, path, "ask.")
        kind = ASK_KEYS[name].type
        if type(value) is not kind:
            raise ConfigError(f"ask.{name} in {path} is {_KINDS[kind]}, not {value!r}")
    for name, value in document.get("local", {}).items():
        _known(name, LOCAL_KEYS, path, "local.")
        kind = LOCAL_KEYS[name].type
        if kind is dict:
            _table(value, path, f"local.{name}")
        elif type(value) is not kind:
            # The proxy's password may stand in any of these.
            shown = "" if name in ("upstream_proxy", "no_proxy") else f", not {value!r}"
            raise ConfigError(f"local.{name} in {path} is {_KINDS[kind]}{shown}")


def _known(name: str, names: Iterable[str], path: Path, prefix: str) -> None:
    if name in names:
        return
    raise ConfigError(f"{path} has no setting {prefix}{name}", hint=_nearest(name, names, prefix))


def _nearest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """A hint for a setting that is not one."""
    from difflib import get_close_matches

    for table, keys in (("local", LOCAL_KEYS), ("ask", ASK_KEYS)):
        if prefix != f"{table}." and name.removeprefix(f"{table}.") in keys:
            return f"it belongs below [{table}] in the file that irons config path prints"
    near = get_close_matches(name, sorted(names), n=1)
    return f"did you mean {prefix}{near[0]}?" if near else "irons config show lists them"


def check_key(name: str) -> None:
    """Raise `ConfigError` with the nearest one where there is no setting of this name."""
    if name not in KEYS:
        raise ConfigError(f"there is no setting {name!r}", hint=_nearest(name, KEYS))


def _checked(name: str, value: object, path: Path, prefix: str) -> None:
    try:
        typed(name, value)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error.message} (in {path})", hint=error.hint) from None


def _table(value: object, path: Path, name: str) -> None:
    if not isinstance(value, dict):
        # Not what it is: a key may have come to stand there.
        raise ConfigError(f"{name} in {path} is a table")
