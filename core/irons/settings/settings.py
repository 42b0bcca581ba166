"""Settings: flag, then environment, then the profile in `config.toml`, then the default; each value knows where it came from."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from irons.errors import ConfigError
from irons.record import NamedTuple
from irons.settings.checking import check, not_toml, typed
from irons.settings.keys import KEYS, Key
from irons.settings.xdg import STATE, config_file, home_directory

HOSTED_URL = "https://elrond.ironcd.dev"
"""Where the hosted service was; the default where a key is set, as it always was."""


class Value(NamedTuple):
    """A setting's value and where it came from: `flag`, the variable's name, `profile NAME`, `config`, or `default`."""

    value: Any
    source: str


class Settings:
    """What holds for one call. Importing `dataclasses` takes longer than reading them."""

    __slots__ = (
        "aliases",
        "ask",
        "debug",
        "env",
        "flags",
        "local",
        "no_input",
        "path",
        "plugins",
        "profile",
        "profile_source",
        "values",
    )

    def __init__(
        self,
        values: Mapping[str, Value],
        profile: str,
        profile_source: str,
        path: Path,
        env: Mapping[str, str] | None = None,
        local: Mapping[str, Any] | None = None,
        *,
        debug: bool = False,
        no_input: bool = False,
        flags: Mapping[str, object] | None = None,
        aliases: Mapping[str, str] | None = None,
        plugins: Mapping[str, Any] | None = None,
        ask: Mapping[str, Any] | None = None,
    ) -> None:
        """Take what was read; `env` is by default this process's."""
        self.values = values
        self.profile = profile
        self.profile_source = profile_source
        self.path = path
        self.env = os.environ if env is None else env
        self.local = local or {}
        self.debug = debug
        self.no_input = no_input
        self.flags = flags or {}
        self.aliases = aliases or {}
        self.plugins = plugins or {}
        self.ask = ask or {}

    def changed(self, **fields: Any) -> Settings:
        """Return the same with other values of these fields."""
        return Settings(**{name: fields.get(name, getattr(self, name)) for name in self.__slots__})

    def __getitem__(self, key: str) -> Any:
        return self.values[key].value

    @property
    def api_url(self) -> str:
        """The API's URL: what was set; else the hosted service's where there is a key; else `local`."""
        named = self["api_url"]
        if named:
            return str(named)
        return HOSTED_URL if self["api_key"] else "local"

    @property
    def api_key(self) -> str | None:
        """The key, if there is one."""
        return self["api_key"] or None

    @property
    def state_dir(self) -> Path:
        """Where irons keeps what must last: `$XDG_STATE_HOME/irons`."""
        return home_of(*STATE, self.env) / "irons"

    @property
    def cache_dir(self) -> Path:
        """Where irons keeps what it can do without: `$XDG_CACHE_HOME/irons`."""
        return home_of("XDG_CACHE_HOME", ".cache", self.env) / "irons"


def home_of(variable: str, fallback: str, env: Mapping[str, str]) -> Path:
    """Return an XDG base directory: the variable where it is an absolute path, else `fallback` below the home."""
    return Path(home_directory(variable, fallback, env))


def config_path(env: Mapping[str, str]) -> Path:
    """Return where the configuration file is: `$IRONS_CONFIG`, else `$XDG_CONFIG_HOME/irons/config.toml`."""
    return Path(config_file(env))


def load(
    flags: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    *,
    strict: bool = True,
) -> Settings:
    """Read settings from flags (global options by their `dest`), the environment and the configuration file.

    Args:
        flags: Global options by their `dest`; what is None or empty was not given.
        env: The environment; by default this process's.
        strict: Whether a file or a profile that is invalid is an error; else it is as if it weren't there.

    Raises:
        ConfigError: The file can't be read, or has something that is not a setting; a flag or variable is invalid.
    """
    flags = flags or {}
    env = process_env() if env is None else env
    path = config_path(env)
    try:
        document = _read(path)
    except ConfigError:
        if strict:
            raise
        document = {}
    profile, source = _profile(flags, env, document)
    profiles = document.get("profiles", {})
    if strict and profile not in ("default", *profiles):
        raise ConfigError(
            f"there is no profile {profile!r} in {path}",
            hint=f"irons config set --profile {profile} api_url URL makes it",
        )
    tables = ((f"profile {profile}", profiles.get(profile, {})), ("config", document))
    return Settings(
        {name: _value(name, key, flags, env, tables) for name, key in KEYS.items()},
        profile,
        source,
        path,
        env,
        document.get("local", {}),
        debug=bool(flags.get("debug")),
        no_input=bool(flags.get("no_input")) or bool(env.get("IRONS_NO_INPUT")),
        flags=flags,
        aliases=document.get("aliases", {}),
        plugins=document.get("plugins", {}),
        ask=document.get("ask", {}),
    )


def profiles_in(env: Mapping[str, str]) -> dict[str, str]:
    """Return the profiles of the configuration file, each with its API URL; nothing but `default` where the file is invalid."""
    try:
        found = _read(config_path(env)).get("profiles", {})
    except ConfigError:
        found = {}
    return {name: str(table.get("api_url", "")) for name, table in {"default": {}, **found}.items()}


def process_env() -> Mapping[str, str]:
    """Return this process's variables; inside xonsh, those of the shell, which `os.environ` does not see."""
    session = getattr(sys.modules.get("xonsh.built_ins"), "XSH", None)
    env = getattr(session, "env", None)
    return os.environ if env is None else dict(env.detype())


def _profile(
    flags: Mapping[str, object], env: Mapping[str, str], document: Mapping[str, Any]
) -> tuple[str, str]:
    if flags.get("profile"):
        return str(flags["profile"]), "flag"
    if env.get("IRONS_PROFILE"):
        return env["IRONS_PROFILE"], "IRONS_PROFILE"
    if document.get("profile"):
        return str(document["profile"]), "config"
    return "default", "default"


def _value(
    name: str,
    key: Key,
    flags: Mapping[str, object],
    env: Mapping[str, str],
    tables: Iterable[tuple[str, Mapping[str, Any]]],
) -> Value:
    if flags.get(name) not in (None, ""):
        return Value(typed(name, flags[name]), "flag")
    if key.env and env.get(key.env):
        return Value(typed(name, env[key.env]), key.env)
    for source, table in tables:
        if name in table:
            return Value(typed(name, table[name]), source)
    return Value(key.default, "default")


def _read(path: Path) -> dict[str, Any]:
    try:
        raw = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(f"{path} can't be read: {error.strerror}") from None
    import tomllib

    try:
        document = tomllib.loads(raw.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_toml(path, error) from None
    check(document, path)
    return document
