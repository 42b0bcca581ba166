"""Files that are corrupt are kept aside, so that nothing in them is lost and the prompt can go on."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from irons.settings.settings import Settings


def set_aside(path: Path) -> Path:
    """Rename a file to `NAME.corrupt-TIME` next to it and return that. Raises `OSError`."""
    aside = path.with_name(f"{path.name}.corrupt-{datetime.now().astimezone():%Y%m%dT%H%M%S}")
    return path.rename(aside)


def mended(settings: Settings) -> str:
    """Set the configuration file aside where it is not TOML; return a line about it, an empty one where it is TOML or not there.

    A file that is TOML and says something unknown stays: that is a slip to be repaired, and the error says how.
    """
    import tomllib

    path = settings.path
    try:
        tomllib.loads(path.read_bytes().decode())
    except OSError:
        return ""
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        try:
            aside = set_aside(path)
        except OSError as trouble:
            return f"{path} is corrupt ({error}), and can't be moved aside: {trouble.strerror}"
        return f"{path} is not TOML ({error}): it is kept as {aside}, and the defaults are used"
    return ""
