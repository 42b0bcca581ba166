"""Host keys that a server told, in a known_hosts file of each sandbox's own: nobody else's entries count there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from irons.errors import ConfigError
from irons_plugins.ssh.openssh import quoted

if TYPE_CHECKING:
    from irons.settings import Settings
    from irons_plugins.ssh.target import Target


def known_hosts_path(settings: Settings, name: str) -> Path:
    """Return where a sandbox's known_hosts file is."""
    return (
        settings.state_dir / "ssh" / "known_hosts" / quote(settings.profile, safe="") / quote(name, safe="")
    )


def told_host_key(settings: Settings, name: str, target: Target) -> dict[str, str]:
    """Write the host keys that the server told, and return the OpenSSH options that check against them alone.

    Raises:
        ConfigError: The file can't be written.
    """
    alias = target.cell or f"{target.host}-{target.port}"
    path = known_hosts_path(settings, name)
    write_owned(path, "".join(f"{alias} {key}\n" for key in target.host_keys))
    return {
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": quoted(path),
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": alias,
        "CheckHostIP": "no",
    }


def write_owned(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file at once or not at all, in a directory of its owner's alone; one that says so already is left. Raises `ConfigError`."""
    try:
        if path.is_file() and path.read_text() == text:
            return
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        try:
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
            Path(temporary).chmod(mode)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} can't be written: {getattr(error, 'strerror', None) or error}") from None
