"""How the control plane was told to be: `server.json` in the state directory, and `[local.hosts]` of the settings."""

from __future__ import annotations

import json
import logging
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from irons_plugins.local.policy import Policy, PolicyError

_log = logging.getLogger(__name__)

FILE = "server.json"
"""Its name in the local backend's state directory."""


class ConfigError(Exception):
    """`server.json` makes no sense; the message is one line."""


@dataclass(frozen=True, slots=True)
class Config:
    """What `irons local up` was given.

    Attributes:
        listen: `HOST:PORT` to serve the API at over TCP too; "" for the unix socket alone.
        tls_cert: path of the certificate (PEM, with its chain) for `listen`.
        tls_key: path of its private key.
        ssh_listen: the address that SSH ports are open on.
        ssh_host: what clients are told to connect to; "" is `ssh_listen`.
        engine: the engine of a sandbox that asks for none.
        keep_events: newest events kept per sandbox.
        keep_days: days that an event is kept.
    """

    listen: str = ""
    tls_cert: str = ""
    tls_key: str = ""
    ssh_listen: str = "127.0.0.1"
    ssh_host: str = ""
    engine: str = "namespace"
    keep_events: int = 100_000
    keep_days: int = 90


def read_config(path: Path) -> Config:
    """The configuration in a file; the default one where there is no file.

    Raises:
        ConfigError: the file cannot be read, or holds something else.
    """
    try:
        given = json.loads(path.read_text())
    except FileNotFoundError:
        return Config()
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} cannot be read ({error}); mend it, or remove it for the defaults"
        ) from error
    if not isinstance(given, dict):
        raise ConfigError(f"{path} is not a JSON object; mend it, or remove it for the defaults")
    known = {each.name: type(each.default) for each in fields(Config)}
    for name, value in given.items():
        if name not in known:
            raise ConfigError(f"{path}: there is no setting {name!r}; there are {', '.join(known)}")
        if type(value) is not known[name] or (isinstance(value, int) and value < 1):
            raise ConfigError(
                f"{path}: {name} must be a {'number above 0' if known[name] is int else 'text'}"
            )
    return Config(**given)


class Hosts:
    """`[local.hosts]` of the settings file, read again when the file changes; a broken file leaves what was."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._hosts: Mapping[str, tuple[str, ...]] = {}

    def __call__(self) -> Mapping[str, tuple[str, ...]]:
        """Name to addresses, as they are now."""
        try:
            found = self._path.stat()
        except OSError:
            self._seen, self._hosts = None, {}
            return self._hosts
        seen = (found.st_mtime_ns, found.st_ino)
        if seen != self._seen:
            self._seen = seen
            try:
                self._hosts = _hosts_of(tomllib.loads(self._path.read_text()))
            except (OSError, ValueError) as error:
                _log.warning("%s: %s; [local.hosts] stays as it was", self._path, error)
        return self._hosts


def _hosts_of(settings: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]]:
    local = settings.get("local")
    hosts = local.get("hosts", {}) if isinstance(local, dict) else {}
    try:
        policy = Policy.from_json({"mode": "deny", "rules": [], "hosts": hosts})
    except PolicyError as error:
        raise ValueError(f"[local.hosts]: {error}") from error
    return {name: tuple(str(address) for address in addresses) for name, addresses in policy.hosts.items()}
