"""What the person's own ssh configuration says about authentication and the way there, and nothing else of it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from irons.record import NamedTuple
from irons.settings.loopback import is_loopback

if TYPE_CHECKING:
    from irons_plugins.ssh.connect.target import Target

CARRIED: Mapping[str, str] = {
    "identityagent": "IdentityAgent",
    "identitiesonly": "IdentitiesOnly",
    "certificatefile": "CertificateFile",
    "pkcs11provider": "PKCS11Provider",
    "securitykeyprovider": "SecurityKeyProvider",
    "addressfamily": "AddressFamily",
    "connecttimeout": "ConnectTimeout",
    "serveraliveinterval": "ServerAliveInterval",
    "serveralivecountmax": "ServerAliveCountMax",
}
"""What is carried over, by the name that `ssh -G` gives it."""

_PATIENCE = 30.0


class Carried(NamedTuple):
    """Options to carry over, and the identity files that the configuration names, in its order."""

    options: Mapping[str, str]
    identities: tuple[str, ...] = ()


def carried_over(target: Target, env: Mapping[str, str]) -> Carried:
    """Return what the person's configuration sets for this host and what is carried over of it.

    OpenSSH itself is asked (`ssh -G`), with the configuration and without; only what differs counts. Where there is no
    configuration, or OpenSSH does not understand it, nothing is carried over.
    """
    home = Path(env["HOME"]) if env.get("HOME") else Path.home()
    config = home / ".ssh" / "config"
    if not config.is_file():
        return Carried({})
    # OpenSSH would look for it in the home directory of the password database, not in HOME.
    own, plain = asked(target, str(config), env), asked(target, "none", env)
    differs = {key: values for key, values in own.items() if plain and values != plain.get(key)}
    options = {name: _value(differs[key][0]) for key, name in CARRIED.items() if key in differs}
    way = "" if is_loopback(target.host) else _way_options(own)
    if way:
        options["ProxyCommand"] = way
    return Carried(options, tuple(map(_value, differs.get("identityfile", ()))))


def _value(text: str) -> str:
    return f'"{text}"' if " " in text and '"' not in text else text


def _way_options(own: Mapping[str, list[str]]) -> str:
    """A jump host is reached by an ssh that reads the configuration: it may be a name of its own there."""
    jump, command = own.get("proxyjump", ["none"])[0], own.get("proxycommand", ["none"])[0]
    if jump != "none":
        *before, last = jump.split(",")
        through = ["-J", ",".join(before)] if before else []
        return shlex.join(["ssh", *through, "-W"]) + " '[%h]:%p' " + shlex.quote(_uri(last))
    return "" if command == "none" else command


def _uri(hop: str) -> str:
    return hop if hop.startswith("ssh://") or ":" not in hop else f"ssh://{hop}"


def asked(target: Target, config: str, env: Mapping[str, str]) -> dict[str, list[str]]:
    """Return what `ssh -G` says of a host: option in lower case → its values; nothing where OpenSSH fails."""
    # Most people have no such configuration, and then nothing of this call needs it.
    import subprocess

    words = ["ssh", "-F", config, "-G", "-p", str(target.port), "-l", target.user, "--", target.host]
    try:
        done = subprocess.run(
            words,
            env=dict(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_PATIENCE,
            check=True,
            text=True,
            errors="replace",
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    told: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        if value:
            told.setdefault(key, []).append(value)
    return told
