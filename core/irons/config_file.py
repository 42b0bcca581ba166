"""Changes to `config.toml`: in place, comments kept, owner-only, atomic."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from irons.errors import ConfigError, NotFound
from irons.settings import KEYS, check

if TYPE_CHECKING:
    import tomlkit


def set_value(path: Path, profile: str, key: str, value: str) -> None:
    """Set `key` in a profile's table; an empty value takes it out.

    Raises:
        ConfigError: There is no such setting, the value makes no sense, or the file can't be written.
    """
    import tomlkit

    if key not in KEYS:
        from difflib import get_close_matches

        near = get_close_matches(key, KEYS, n=1)
        raise ConfigError(
            f"there is no setting {key!r}",
            hint=f"did you mean {near[0]}?" if near else "irons config show lists them",
        )
    document = _document(path)
    profiles = document.setdefault("profiles", tomlkit.table(is_super_table=True))
    table = profiles.setdefault(profile, tomlkit.table())
    if value:
        table[key] = _typed(key, value)
    else:
        table.pop(key, None)
    _write(path, document)


def use_profile(path: Path, profile: str) -> None:
    """Make `profile` the one that is used from now on. Raises `NotFound` where the file has none of that name."""
    document = _document(path)
    if profile != "default" and profile not in document.get("profiles", {}):
        raise NotFound(
            f"there is no profile {profile!r} in {path}",
            hint=f"irons config set --profile {profile} api_url URL makes it",
        )
    document["profile"] = profile
    _write(path, document)


def _typed(key: str, value: str) -> Any:
    from irons.settings import _typed as read  # the same reading as at load

    read(key, KEYS[key], value)
    return float(value) if KEYS[key].type is float else value


def _document(path: Path) -> tomlkit.TOMLDocument:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(path.read_text())
    except FileNotFoundError:
        return tomlkit.document()
    except (OSError, UnicodeDecodeError, TOMLKitError) as error:
        raise ConfigError(f"{path} can't be read: {error}") from None
    check(document, path)
    return document


def _write(path: Path, document: tomlkit.TOMLDocument) -> None:
    import tomlkit

    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".config-")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(tomlkit.dumps(document))
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}") from None
