"""How much of its log a member keeps for a server that is away: `member_log` in `[local]` of the settings file."""

from __future__ import annotations

import tomllib
from pathlib import Path

SETTING = "member_log"
USUAL = 1024
"""Mebibytes."""


class MemberLogError(Exception):
    """The setting is invalid; the message is one line."""


def read_member_log(settings: Path) -> int:
    """How many bytes may wait.

    Args:
        settings: the settings file; it need not be there.

    Raises:
        MemberLogError: it cannot be read, or the setting is invalid.
    """
    try:
        local = tomllib.loads(settings.read_text()).get("local", {})
    except (FileNotFoundError, NotADirectoryError):
        return USUAL << 20
    except (OSError, ValueError) as error:
        raise MemberLogError(f"{settings} cannot be read ({error}); fix it, or move it away") from error
    found = local.get(SETTING, USUAL) if isinstance(local, dict) else USUAL
    if type(found) is not int or not 0 < found <= 1 << 20:
        raise MemberLogError(
            f"{settings}: local.{SETTING} must be a number of mebibytes above 0, not {found!r}"
        )
    return found << 20
