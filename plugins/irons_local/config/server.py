"""Configuration of the control plane: `server.json` in its state directory, and `[local]` of the settings file."""

from __future__ import annotations

import json
import logging
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

from irons_local.config import worker_count
from irons_local.config.authorities import Authorities, Carrying
from irons_local.config.authority_files import AuthoritiesError, paths_of
from irons_local.config.incus import read_incus
from irons_local.config.synthetic_pool import PoolError, read_pool
from irons_local.config.upstream import Upstream, UpstreamError, read_upstream
from irons_policy.addresses import Address
from irons_policy.patterns import Pattern, PatternError, read_never
from irons_policy.policy import Policy, PolicyError

_log = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"
_PLACE = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):[1-9][0-9]{0,4}", re.ASCII)
_PORTS = 65_536
_LONGEST_HOLD = 60
"""Seconds that a connection waits for a person at most: most clients have given up by then."""


MAY = ("once", "hour", "no")
"""What `[ask] exec` may answer, where `exec_may` does not say."""
_ANSWERS = ("once", "stop", "hour", "always", "no", "never")
_MOST_WORDS = 64


class NotifierSettings(NamedTuple):
    """`[ask]`, as far as what hears of questions is concerned: a program, and plugins.

    Attributes:
        command: the program and its arguments; empty where there is none.
        may: what they may answer.
        hold: connections wait for their answers.
        reason: they are given the agent's words.
    """

    command: tuple[str, ...] = ()
    may: tuple[str, ...] = MAY
    hold: bool = False
    reason: bool = False


class ServerConfigError(Exception):
    """The configuration is invalid; the message is one line."""


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """How one control plane is to be.

    Attributes:
        host: the address to serve the API at over TCP; None serves the unix socket alone.
        port: the port there.
        tls_cert: path of the certificate (PEM, with its chain) for that; None: no TLS.
        tls_key: path of its private key.
        ssh_host: the address that sandboxes' SSH ports are open on.
        engine: the engine of a sandbox that asks for none.
        keep_events: newest events kept per sandbox.
        keep_days: days that an event is kept.
        keep_changes: newest entries kept of the change log, of all together and as many for each API key.
        connections: what a sandbox may have at once; None leaves it to the gateway.
        synthetic_pool: the block of made-up addresses of sandboxes made from now on; None is the usual one.
        ask_hold: seconds that a connection waits for a person, in mode `ask`.
        fleet_listen: where members of a fleet connect, `HOST:PORT`; None has no fleet.
    """

    host: str | None = None
    port: int | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    ssh_host: str = _LOOPBACK
    engine: str = "namespace"
    keep_events: int = 100_000
    keep_days: int = 90
    keep_changes: int = 100_000
    connections: int | None = None
    synthetic_pool: str | None = None
    ask_hold: int = 4
    fleet_listen: str | None = None


def read_config(listening: Path, settings: Path) -> ServerConfig:
    """The configuration in two files; either may be missing.

    Args:
        listening: `server.json`.
        settings: the settings file, whose `[local]` may have `engine`, `keep_events`, `keep_days`, `keep_changes`,
            `connections`, `ask_hold`, `fleet_listen` and `gateway_workers`, which is for the keeper and only checked here.

    Raises:
        ServerConfigError: one of them cannot be read, or holds what is invalid.
    """
    given = _read(listening, json.loads)
    asked = {name: value for name, value in given.items() if value is not None}
    for name, kind in (("host", str), ("port", int), ("tls_cert", str), ("tls_key", str), ("ssh_host", str)):
        if type(asked.get(name, kind())) is not kind:
            raise ServerConfigError(f"{listening}: {name} is invalid; fix it, or remove the file")
    found = _read(settings, tomllib.loads)
    local = found.get("local", {})
    kept = {
        name: local[name]
        for name in ("keep_events", "keep_days", "keep_changes", "connections", "ask_hold")
        if name in local
    }
    for name, value in kept.items():
        if type(value) is not int or not 0 < value < 1_000_000_000:
            raise ServerConfigError(f"{settings}: local.{name} must be a number above 0, not {value!r}")
    if kept.get("ask_hold", 1) > _LONGEST_HOLD:
        raise ServerConfigError(
            f"{settings}: local.ask_hold must be a number of seconds from 1 to {_LONGEST_HOLD}, not {kept['ask_hold']}"
        )
    if worker_count.SETTING in local and not worker_count.fits(local[worker_count.SETTING]):
        raise ServerConfigError(
            f"{settings}: local.{worker_count.SETTING} must be a number from 1 to {worker_count.MOST}, "
            f"not {local[worker_count.SETTING]!r}"
        )
    fleet = local.get("fleet_listen")
    if fleet is not None and not (
        isinstance(fleet, str) and _PLACE.fullmatch(fleet) and int(fleet.rpartition(":")[2]) < _PORTS
    ):
        raise ServerConfigError(f"{settings}: local.fleet_listen must be HOST:PORT, not {fleet!r}")
    try:
        read_upstream(local)
        paths_of(local)
        read_incus(local)
        _never_of(found)
        _notifier_of(found)
        pool = None if "synthetic_pool" not in local else str(read_pool(str(local["synthetic_pool"])))
    except PoolError as error:
        raise ServerConfigError(f"{settings}: local.synthetic_pool: {error}") from None
    except (UpstreamError, AuthoritiesError, ValueError) as error:
        raise ServerConfigError(f"{settings}: {error}") from None
    return ServerConfig(
        host=asked.get("host"),
        port=asked.get("port"),
        tls_cert=asked.get("tls_cert"),
        tls_key=asked.get("tls_key"),
        ssh_host=asked.get("ssh_host", _LOOPBACK),
        engine=str(local.get("engine") or "namespace"),
        synthetic_pool=pool,
        fleet_listen=fleet,
        **kept,
    )


def _read(path: Path, parse: Callable[[str], Any]) -> Mapping[str, Any]:
    try:
        found = parse(path.read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise ServerConfigError(f"{path} cannot be read ({error}); fix it, or move it away") from error
    if not isinstance(found, dict) or not isinstance(found.get("local", {}), dict):
        raise ServerConfigError(f"{path} is invalid; fix it, or move it away")
    return found


class LocalTable:
    """What of `[local]` and `[ask]` in the settings file may change at any time: read again when the file changes.

    A broken file, or an invalid setting in it, leaves everything as it was.

    Args:
        path: the settings file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, int] | None = None
        self._hosts: Mapping[str, tuple[Address, ...]] = {}
        self._upstream: Upstream | None = None
        self._ca: Sequence[str] | None = None
        self._never: tuple[Pattern, ...] = ()
        self._notifier = NotifierSettings()
        self._carrying = Carrying()

    def authorities(self) -> Authorities:
        """The certificate authorities that are carried into sandboxes, as they are now."""
        self._refresh()
        return self._carrying.read(self._ca)

    def hosts(self) -> Mapping[str, tuple[Address, ...]]:
        """`[local.hosts]`: name to addresses, as they are now."""
        self._refresh()
        return self._hosts

    def upstream(self) -> Upstream | None:
        """The upstream proxy, as it is set now."""
        self._refresh()
        return self._upstream

    def never(self) -> tuple[Pattern, ...]:
        """`[ask] never`: what no person is asked about, as it is set now."""
        self._refresh()
        return self._never

    def notifier(self) -> NotifierSettings:
        """What notifiers of `[ask]` may do, as it is set now."""
        self._refresh()
        return self._notifier

    def program(self) -> NotifierSettings | None:
        """The same, where `[ask] exec` names a program."""
        found = self.notifier()
        return found if found.command else None

    def _refresh(self) -> None:
        try:
            found = self._path.stat()
        except OSError:
            self._seen, self._hosts, self._upstream, self._ca = None, {}, None, None
            self._never, self._notifier = (), NotifierSettings()
            return
        seen = (found.st_mtime_ns, found.st_ino)
        if seen == self._seen:
            return
        self._seen = seen
        try:
            settings = tomllib.loads(self._path.read_text())
            hosts, upstream = _hosts_of(settings), read_upstream(_local_of(settings))
            ca, never = paths_of(_local_of(settings)), _never_of(settings)
            notifier = _notifier_of(settings)
        except (OSError, ValueError) as error:
            _log.warning("%s: %s; [local] and [ask] stay as they were", self._path, error)
        else:
            self._hosts, self._upstream, self._ca = hosts, upstream, ca
            self._never, self._notifier = never, notifier


def _local_of(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    local = settings.get("local")
    return local if isinstance(local, dict) else {}


def _ask_of(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    ask = settings.get("ask", {})
    if not isinstance(ask, dict):
        raise PatternError("ask: expected a table")
    return cast("dict[str, Any]", ask)


def _notifier_of(settings: Mapping[str, Any]) -> NotifierSettings:
    """`[ask] exec` and what belongs to it.

    Raises:
        ValueError: a value is invalid.
    """
    ask = _ask_of(settings)
    command, may = _words(ask, "exec", ()), _words(ask, "exec_may", MAY)
    if command and not command[0]:
        raise ValueError("ask.exec: expected a program, and its arguments")
    for each in may:
        if each not in _ANSWERS:
            raise ValueError(f"ask.exec_may: {each[:80]!r} is not one of {', '.join(_ANSWERS)}")
    for name in ("hold", "reason"):
        if type(ask.get(name, False)) is not bool:
            raise ValueError(f"ask.{name}: expected true or false")
    return NotifierSettings(command, may, ask.get("hold", False), ask.get("reason", False))


def _words(ask: Mapping[str, Any], name: str, default: tuple[str, ...]) -> tuple[str, ...]:
    given = ask.get(name, default)
    if not isinstance(given, list | tuple) or len(given) > _MOST_WORDS:
        raise ValueError(f"ask.{name}: expected a list of texts")
    words = cast("Sequence[object]", given)
    if not all(isinstance(each, str) and "\0" not in each for each in words):
        raise ValueError(f"ask.{name}: expected a list of texts")
    return tuple(str(each) for each in words)


def _never_of(settings: Mapping[str, Any]) -> tuple[Pattern, ...]:
    """`[ask] never`.

    Raises:
        PatternError: it is not a list of patterns.
    """
    try:
        return read_never(_ask_of(settings).get("never", []))
    except PatternError as error:
        raise PatternError(f"ask.never: {error}") from None


def _hosts_of(settings: Mapping[str, Any]) -> Mapping[str, tuple[Address, ...]]:
    hosts = _local_of(settings).get("hosts", {})
    try:
        return Policy.from_json({"mode": "deny", "rules": [], "hosts": hosts}).hosts
    except PolicyError as error:
        raise ValueError(f"[local.hosts]: {error}") from error
