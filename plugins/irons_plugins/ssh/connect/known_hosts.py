"""Host keys that a server sent, in a known_hosts file of each sandbox's own, the only one that is read."""

from __future__ import annotations

import errno
import shlex
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from irons.errors import ConfigError
from irons.files import write_whole
from irons_plugins.ssh.openssh.command_line import quoted

if TYPE_CHECKING:
    from irons.settings.settings import Settings
    from irons_plugins.ssh.connect.target import Target


_FULL = (errno.ENOSPC, errno.EDQUOT)


def known_hosts_path(settings: Settings, name: str) -> Path:
    """Return where a sandbox's known_hosts file is."""
    return (
        settings.state_dir / "ssh" / "known_hosts" / quote(settings.profile, safe="") / quote(name, safe="")
    )


def told_host_key(settings: Settings, name: str, target: Target) -> dict[str, str]:
    """Write the host keys that the server sent, and return the OpenSSH options that check against them alone.

    On a full disk they travel in the options themselves: a sandbox must be entered to have something removed there.

    Raises:
        ConfigError: The file can't be written.
    """
    alias = target.cell or f"{target.host}-{target.port}"
    path = known_hosts_path(settings, name)
    keys = "".join(f"{alias} {key}\n" for key in target.host_keys)
    known = {"UserKnownHostsFile": quoted(path)}
    try:
        # Written only where it is new: a sandbox is entered on a full disk too.
        if not _says(path, keys):
            write_whole(path, keys)
    except OSError as error:
        import shutil

        printf = shutil.which("printf") if error.errno in _FULL else None
        if printf is None:
            raise ConfigError(f"{path} can't be written: {error.strerror}") from None
        words = shlex.join([printf, "%%s\\n", *keys.splitlines()])
        known = {"UserKnownHostsFile": "/dev/null", "KnownHostsCommand": words}
    return {
        "StrictHostKeyChecking": "yes",
        **known,
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": alias,
        "CheckHostIP": "no",
    }


def _says(path: Path, text: str) -> bool:
    try:
        return path.read_text() == text
    except (OSError, UnicodeDecodeError):
        return False
