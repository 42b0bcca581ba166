"""OpenSSH command lines: what is pinned, what is left out, and how it is quoted.

The person's own ssh configuration is not read (`-F none`): it may forward the agent, X11, ports or variables into the sandbox,
and those are ways round the gateway. The agent of SSH_AUTH_SOCK and the default identity files still open the door.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from irons.errors import ConfigError

if TYPE_CHECKING:
    from irons_plugins.ssh.target import Target

PINNED: Mapping[str, str] = {
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "Tunnel": "no",
    "ControlPath": "none",
    "UpdateHostKeys": "no",
}
"""Said on every command line, though `-F none` and OpenSSH's defaults amount to the same."""

UNCHECKED: Mapping[str, str] = {
    "StrictHostKeyChecking": "no",
    "UserKnownHostsFile": "/dev/null",
    "GlobalKnownHostsFile": "/dev/null",
    "LogLevel": "ERROR",
}
"""A host key that nobody told is not checked; LogLevel spares the warning that it was added to /dev/null."""


def options(
    target: Target,
    state_dir: Path,
    *,
    identity: Path | None = None,
    strict: bool = False,
    through_cell: bool = False,
) -> list[str]:
    """Return the options that ssh and scp share, but for the port.

    Args:
        target: Where to.
        state_dir: Where the known_hosts file of a told host key is written.
        identity: The private key that the sandbox was created with.
        strict: Check the host key even where the server told none.
        through_cell: Reach the sandbox by a descriptor from the keeper instead of its TCP port.

    Raises:
        ConfigError: The known_hosts file can't be written.
    """
    said = dict(PINNED)
    if target.host_keys:
        said |= told_host_key(target, state_dir)
    elif strict:
        said |= {"StrictHostKeyChecking": "yes"}
    else:
        said |= UNCHECKED
    if through_cell and target.cell:
        said |= {"ProxyCommand": proxy_command(target.cell), "ProxyUseFdpass": "yes"}
    words = ["-F", "none"]
    for key, value in said.items():
        words += ["-o", f"{key}={value}"]
    if identity is not None:
        words += ["-o", f"IdentityFile={quoted(identity)}"]
    return words


def ssh_argv(
    target: Target, shared: Sequence[str], flags: Sequence[str] = (), remote: str | None = None
) -> tuple[str, ...]:
    """Return the words of an ssh command; `remote` is a line for the sandbox's shell."""
    words = ["ssh", *shared, "-p", str(target.port), *flags, f"{target.user}@{target.host}"]
    return (*words, "--", remote) if remote is not None else tuple(words)


def told_host_key(target: Target, state_dir: Path) -> dict[str, str]:
    """Write the host keys that the server told to a file of their own, and return the options that check against it."""
    alias = target.cell or f"{target.host}-{target.port}"
    lines = "".join(f"{alias} {key}\n" for key in target.host_keys)
    which = hashlib.sha256(lines.encode()).hexdigest()[:16]
    path = state_dir / "ssh" / "known_hosts" / f"{alias.replace(':', '_')}-{which}"
    if not (path.is_file() and path.read_text() == lines):
        _write(path, lines)
    return {
        "StrictHostKeyChecking": "yes",
        "UserKnownHostsFile": quoted(path),
        "GlobalKnownHostsFile": "/dev/null",
        "HostKeyAlias": alias,
        "CheckHostIP": "no",
    }


def proxy_command(cell: str) -> str:
    """Return the command that hands ssh a connected descriptor; ssh gives it to the person's shell and expands its percent signs."""
    words = (sys.executable, "-m", "irons", "local", "connect", cell)
    return shlex.join(words).replace("%", "%%")


def quoted(path: Path) -> str:
    """Return a path as an OpenSSH option's value: in quotes where it has spaces, its percent signs doubled."""
    text = str(path).replace("%", "%%")
    if not any(character.isspace() or character in "\"'\\" for character in text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def remote_line(words: Sequence[str]) -> str | None:
    """Return the line for the sandbox's shell: one word as it is, several quoted; None where there is none."""
    if not words:
        return None
    return words[0] if len(words) == 1 else shlex.join(words)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with os.fdopen(descriptor, "w") as file:
            file.write(text)
        Path(temporary).replace(path)
    except OSError as error:
        raise ConfigError(f"{path} can't be written: {error.strerror}") from None
