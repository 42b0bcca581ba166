"""OpenSSH command lines: what is pinned, what is left out, and how it is quoted.

The person's own ssh configuration is not read (`-F none`): it may forward the agent, X11, ports or variables into the sandbox,
and those are ways round the gateway. What it says about authentication and the way there is carried over (`user_ssh_config`).
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from irons_plugins.ssh.connect.target import Target

PINNED: Mapping[str, str] = {
    "ForwardAgent": "no",
    "ForwardX11": "no",
    "PermitLocalCommand": "no",
    "Tunnel": "no",
    "ControlPath": "none",
    "UpdateHostKeys": "no",
}
"""On every command line, though `-F none` and OpenSSH's defaults amount to the same."""

UNCHECKED: Mapping[str, str] = {
    "StrictHostKeyChecking": "no",
    "UserKnownHostsFile": "/dev/null",
    "GlobalKnownHostsFile": "/dev/null",
    "LogLevel": "ERROR",
}
"""A host key that the server did not send is not checked; LogLevel spares the warning that it was added to /dev/null."""

CHECKED: Mapping[str, str] = {"StrictHostKeyChecking": "yes"}
"""A host key that the server did not send, but that must be in ~/.ssh/known_hosts."""


Options = Sequence[tuple[str, str]]
"""OpenSSH options in their order; of most the first counts, IdentityFile adds up."""


def as_words(options: Options) -> list[str]:
    """Return options as words of a command line, after the one that keeps every configuration file out."""
    words = ["-F", "none"]
    for key, value in options:
        words += ["-o", f"{key}={value}"]
    return words


def ssh_argv(
    target: Target, options: Options, flags: Sequence[str] = (), remote: str | None = None
) -> tuple[str, ...]:
    """Return the words of an ssh command; `remote` is a line for the sandbox's shell."""
    words = ("ssh", *as_words(options), "-p", str(target.port), *flags, f"{target.user}@{target.host}")
    return (*words, "--", remote) if remote is not None else words


def scp_argv(target: Target, options: Options, paths: Sequence[str], *, recursive: bool) -> tuple[str, ...]:
    """Return the words of an scp command; `paths` are as `local_path` and `remote_path` made them."""
    flags = ("-r",) if recursive else ()
    return ("scp", *as_words(options), "-P", str(target.port), *flags, "--", *paths)


def remote_path(target: Target, path: str) -> str:
    """Return a path in the sandbox as scp takes it."""
    host = f"[{target.host}]" if ":" in target.host else target.host
    return f"{target.user}@{host}:{path}"


def local_path(path: str) -> str:
    """Return a path of this machine as scp takes it: a colon in it does not make it another machine's."""
    return f"./{path}" if ":" in path.partition("/")[0] or path.startswith("-") else path


def proxy_command(cell: str, handover: Sequence[str] = ()) -> str:
    """Return the command that hands ssh a connected descriptor; ssh gives it to the person's shell and expands its percent signs.

    Args:
        cell: The sandbox's cell.
        handover: The backend's own command for it; without one, all of irons is started.
    """
    # -P: ssh is run anywhere, and what lies there must not be imported.
    words = (*(handover or (sys.executable, "-P", "-m", "irons", "local", "connect")), cell)
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
