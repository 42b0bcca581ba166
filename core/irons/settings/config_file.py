"""Changes to `config.toml`: in place, comments kept, owner-only, atomic."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from irons.errors import ConfigError, NotFound
from irons.files import write_whole
from irons.settings.checking import check, check_key, not_toml, typed

if TYPE_CHECKING:
    import tomlkit


def set_value(path: Path, profile: str, key: str, value: str) -> bool:
    """Set `key` in a profile's table, making either where it is not there; an empty value takes the key out.

    A key alone would choose the hosted service, which has been retired: where the file names no server, `api_url` becomes
    `local`, which it was without a key.

    Returns:
        Whether `api_url` was set besides.

    Raises:
        ConfigError: There is no such setting, the value is invalid, or the file can't be read or written.
    """
    import tomlkit

    check_key(key)
    if value:
        typed(key, value)
    document = _document(path)
    profiles = document.setdefault("profiles", tomlkit.table(is_super_table=True))
    table = profiles.setdefault(profile, tomlkit.table())
    if value:
        table[key] = typed(key, value)
    else:
        table.pop(key, None)
    kept = key == "api_key" and bool(value) and not (table.get("api_url") or document.get("api_url"))
    if kept:
        table["api_url"] = "local"
    _write(path, document)
    return kept


def set_plugin_value(path: Path, plugin: str, key: str, value: Any) -> None:
    """Set `key` in `[plugins.PLUGIN]`; an empty value takes the key out.

    Raises:
        ConfigError: The file can't be read or written, or has something else at that place.
    """
    import tomlkit

    document = _document(path)
    plugins = document.setdefault("plugins", tomlkit.table(is_super_table=True))
    table = plugins.setdefault(plugin, tomlkit.table())
    if not hasattr(table, "keys"):
        raise ConfigError(f"plugins.{plugin} in {path} is not a table", hint=f"make it [plugins.{plugin}]")
    if value == "":
        table.pop(key, None)
    else:
        table[key] = value
    _write(path, document)


def use_profile(path: Path, profile: str) -> None:
    """Make `profile` the one that is used from now on.

    Raises:
        NotFound: The file has none of that name.
        ConfigError: The file can't be read or written.
    """
    document = _document(path)
    profiles = document.get("profiles", {})
    if profile != "default" and profile not in profiles:
        known = ", ".join(profiles)
        raise NotFound(
            f"there is no profile {profile!r} in {path}" + (f", only {known}" if known else ""),
            hint=f"irons config set --profile {profile} api_url URL makes it",
        )
    document["profile"] = profile
    _write(path, document)


def _document(path: Path) -> tomlkit.TOMLDocument:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return tomlkit.document()
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    except (UnicodeDecodeError, TOMLKitError) as error:
        raise not_toml(path, error) from None
    # The library's own integers and texts are no plain ones.
    check(document.unwrap(), path)
    return document


def _write(path: Path, document: tomlkit.TOMLDocument) -> None:
    import tomlkit

    # A link to the real file, as people keep them in a repository of theirs, stays one.
    path = path.resolve()
    try:
        write_whole(path, tomlkit.dumps(document), durable=True)
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}") from None
