"""Variables that a sandbox is created with: checked here, and kept in a file of this user's until the engine has them.

Their values are secrets as often as not. They are in no row of the database, which is backed up, and in no answer or log.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path

from irons.files import write_whole
from irons_local.control.schema.errors import bad
from irons_local.control.schema.schemas import Schema, text

VARIABLES: Schema = {
    "type": ["object", "null"],
    "additionalProperties": text(65_536),
    "maxProperties": 64,
    "description": "Variables of its sessions and its boot, by name; never answered again.",
}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,254}", re.ASCII)
# A shell that is handed one of these may end before it has started anything.
_SHELLS_OWN = re.compile(r"irons_.*|IFS|OPT.*|PPID|PS4|ENV|E?UID|SHELLOPTS|BASH.*|LINENO|FUNCNAME", re.ASCII)
_SESSIONS_OWN = ("HOME", "LOGNAME", "SHELL", "USER", "SSH_ORIGINAL_COMMAND")


def checked(given: Mapping[str, str]) -> dict[str, str]:
    """Variables as the API was given them.

    Raises:
        HttpError: a name is not one, or belongs to the shell or the session; no value is in its text.
    """
    for name in given:
        if not _NAME.fullmatch(name):
            raise bad(f"environment: {name[:60]!r} is not the name of a variable")
        if _SHELLS_OWN.fullmatch(name) or name in _SESSIONS_OWN:
            raise bad(f"environment: {name[:60]} belongs to the shell or the session and cannot be set")
    return dict(given)


class Variables:
    """The variables of sandboxes that are still being made, one file each."""

    def __init__(self, directory: Path) -> None:
        """Keep them in `directory`, which is made when it is needed."""
        self._directory = directory

    def keep(self, sandbox: str, variables: Mapping[str, str]) -> None:
        """Write a sandbox's variables, so that they outlive this process.

        Raises:
            OSError: they cannot be written.
        """
        self._directory.mkdir(mode=0o700, exist_ok=True)
        write_whole(self._directory / sandbox, json.dumps(dict(variables)), durable=True, parents=False)

    def of(self, sandbox: str) -> dict[str, str]:
        """Return a sandbox's variables; an empty result if the file is absent.

        Raises:
            OSError: the file cannot be read.
        """
        try:
            found: dict[str, str] = json.loads((self._directory / sandbox).read_bytes())
        except FileNotFoundError:
            return {}
        return found

    def forget(self, sandbox: str) -> None:
        """Remove a sandbox's file, where there is one."""
        with contextlib.suppress(FileNotFoundError):
            (self._directory / sandbox).unlink()

    def forget_all_but(self, known: Collection[str]) -> None:
        """Remove the files of sandboxes that are made, or that there are not."""
        with contextlib.suppress(FileNotFoundError):
            for path in self._directory.iterdir():
                if path.name not in known:
                    path.unlink(missing_ok=True)
