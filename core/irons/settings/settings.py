"""Settings: flag, then environment, then the profile in `config.toml`, then the default; each value knows where it came from."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from irons.command import FORMATS
from irons.errors import ConfigError
from irons.record import NamedTuple
from irons.settings.xdg import STATE, config_file, home_directory

HOSTED_URL = "https://elrond.ironcd.dev"
"""Where the hosted service was; the default where a key is set, as it always was."""


class Key(NamedTuple):
    """One setting.

    Attributes:
        env: its environment variable; empty where it has none.
        default: its value where nothing sets it; None where there is none, or it depends on something else.
        help: what it is, in one sentence.
        choices: the words that it may be; any text where there are none.
        type: `str`, or `float` for seconds.
        example: a value that shows its form, for settings without a default.
    """

    env: str
    default: Any
    help: str
    choices: tuple[str, ...] = ()
    type: type = str
    example: Any = None


KEYS: dict[str, Key] = {
    "api_url": Key(
        "IRONS_API_URL", None, "Where the API is: local, unix:///path, http(s)://…", example="local"
    ),
    "api_key": Key("IRONS_API_KEY", None, "The key for the API.", example="KEY"),
    "api_ca": Key(
        "IRONS_API_CA",
        None,
        "The file with the CA certificates (PEM) that verify an https:// API.",
        example="/etc/company/root.pem",
    ),
    "output": Key(
        "IRONS_OUTPUT",
        None,
        "How answers are printed.",
        FORMATS,
        example="table",
    ),
    "connect_timeout": Key("IRONS_CONNECT_TIMEOUT", 5.0, "Seconds to wait for a connection.", type=float),
    "read_timeout": Key("IRONS_READ_TIMEOUT", 30.0, "Seconds to wait for an answer.", type=float),
    "wait_timeout": Key(
        "IRONS_WAIT_TIMEOUT", 600.0, "Seconds that create, start, stop, destroy and wait wait.", type=float
    ),
    "public_key": Key(
        "IRONS_PUBLIC_KEY", None, "The public key file that create sends.", example="~/.ssh/id_ed25519.pub"
    ),
    "sandbox": Key(
        "IRONS_SANDBOX", None, "The sandbox to use where a command names none.", example="my-sandbox"
    ),
    "editing_mode": Key("IRONS_EDITING_MODE", "emacs", "Keys of the prompt.", ("emacs", "vi")),
    "ask_chord": Key(
        "IRONS_ASK_CHORD",
        "alt-q f2",
        "Keys that open the questions of mode ask in the prompt and in xonsh: alt- and a letter, f1 to f12 but f4.",
    ),
    "terminal_title": Key(
        "IRONS_TERMINAL_TITLE",
        "on",
        "Show in the terminal's title how many questions are open, in the prompt and in watch.",
        ("on", "off"),
    ),
    "pager": Key(
        "IRONS_PAGER", None, "The pager of the prompt's long answers; off for none.", example="less -FRX"
    ),
}
"""Every setting a profile, or the top of the file, may have."""

TABLES: dict[str, str] = {
    "profiles": "Settings by profile: [profiles.NAME] with the keys above.",
    "aliases": "Commands of your own.",
    "plugins": "Settings of plugins: [plugins.NAME]; irons config show lists them.",
    "ask": "What a person is asked in mode ask; read again when it changes.",
    "local": "Settings of the local backend; those of the proxy, `ca` and `hosts` are read again when they change.",
}
"""The tables the file may have, next to the settings and `profile`, the name of the profile that is used."""


class LocalKey(NamedTuple):
    """One setting of the local backend.

    Attributes:
        type: of its value.
        help: what it is, in one or more sentences.
        default: its value where nothing sets it; None where that depends on the machine.
        example: a value that shows its form, for settings without a default.
    """

    type: type
    help: str
    default: Any = None
    example: Any = None


LOCAL_KEYS: dict[str, LocalKey] = {
    "engine": LocalKey(str, "The engine of sandboxes that ask for no other.", "namespace"),
    "keep_events": LocalKey(int, "How many audit events of each sandbox are kept.", 100_000),
    "keep_days": LocalKey(int, "How many days audit events are kept.", 90),
    "keep_changes": LocalKey(int, "How many entries of the change log are kept.", 100_000),
    "connections": LocalKey(int, "How many connections a sandbox may have at once.", 1024),
    "ask_hold": LocalKey(int, "How many seconds a connection of mode ask waits for a person, 1 to 60.", 4),
    "gateway_workers": LocalKey(
        int,
        "How many workers the gateway has, 1 to 64; by default one for each processor, at most 4.",
        example=4,
    ),
    "synthetic_pool": LocalKey(
        str, "The block of made-up addresses of sandboxes created from now on.", "198.18.0.0/15"
    ),
    "upstream_proxy": LocalKey(
        str,
        "The company proxy by which the gateway dials: http://[USER:PASSWORD@]HOST:PORT.",
        example="http://proxy.example.com:3128",
    ),
    "no_proxy": LocalKey(
        list, "Hosts that are dialled without the proxy: patterns as in rules, without ports.", []
    ),
    "upstream_resolves": LocalKey(
        bool, "Send names to the proxy, in place of addresses that were checked here.", default=False
    ),
    "ca": LocalKey(
        list,
        "Certificate authorities that sandboxes trust: absolute paths of files and directories; by default "
        "those added to this machine, and [] for none.",
        example=["/etc/company/root.pem"],
    ),
    "hosts": LocalKey(
        dict, "Names that mean these addresses in sandboxes.", example={"registry.test": ["192.0.2.10"]}
    ),
}
"""What the table `[local]` may have."""

ASK_KEYS: dict[str, LocalKey] = {
    "never": LocalKey(
        list,
        "Patterns of hosts that no one is asked about: they are refused without a question. Without a port a pattern is for all.",
        [],
    ),
    "exec": LocalKey(
        list,
        "A program, with its arguments, that gets each question as JSON on stdin and may answer in one word on stdout.",
        example=["/usr/local/bin/ask-me"],
    ),
    "exec_may": LocalKey(
        list, "What that program may answer: once, stop, hour, always, no, never.", ["once", "hour", "no"]
    ),
    "hold": LocalKey(
        bool, "Connections wait for that program where it answered within the last hour.", default=False
    ),
    "reason": LocalKey(
        bool, "That program gets the reason that an agent gave: the sandbox's words.", default=False
    ),
}
"""What the table `[ask]` may have; the local backend reads it."""


_KINDS: dict[type, str] = {str: "text", int: "a whole number", list: "a list", bool: "true or false"}


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


def typed(name: str, raw: object) -> str | float:
    """Return a setting's raw value as what it is: text, one of its choices, or seconds.

    Raises:
        ConfigError: It is invalid.
    """
    key = KEYS[name]
    if key.type is float:
        try:
            number = float(str(raw))
        except ValueError:
            raise ConfigError(f"{name} takes a number of seconds, not {raw!r}") from None
        if not 0 < number < 1e7:
            raise ConfigError(f"{name} takes a number of seconds above 0, not {raw!r}")
        return number
    if not isinstance(raw, str):
        # What stands where a key belongs may be one.
        raise ConfigError(f"{name} takes text" if name == "api_key" else f"{name} takes text, not {raw!r}")
    if name == "api_url":
        _check_url(raw)
    # Plugins bring more formats, and are not known here.
    if key.choices and raw not in key.choices and name != "output":
        raise ConfigError(f"{name} is one of {', '.join(key.choices)}, not {raw!r}")
    return raw


def _check_url(url: str) -> None:
    """Refuse secrets in a URL without showing them: messages and `config show` name it, and so does the server's own log."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in ("http", "https"):
        return
    authority = rest.partition("/")[0]
    if "@" in authority or "?" in rest or "#" in rest:
        raise ConfigError(
            "an API URL carries no user, password, query or fragment", hint="set the key by IRONS_API_KEY"
        )


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


def not_toml(path: Path, error: Exception) -> ConfigError:
    """Return what is reported of a file that can't be read, with the way out."""
    # Tomllib says `Cannot declare ('local',) twice (at line 9, column 7)`.
    twice = "put the lines below it where that table begins first, or " if " twice" in str(error) else ""
    hint = f"{twice or 'fix it by hand, or '}move it away: mv {path} {path}.bad"
    return ConfigError(f"{path} is not TOML: {error}", hint=hint)


def check(document: Mapping[str, Any], path: Path) -> None:
    """Refuse what is not a setting, with the nearest one that is, and values that are invalid.

    Raises:
        ConfigError: There is such a thing in the file.
    """
    for name, value in document.items():
        _known(name, (*KEYS, "profile", *TABLES), path, "")
        if name in TABLES:
            _table(value, path, name)
        elif name == "profile":
            if not isinstance(value, str):
                raise ConfigError(
                    f"profile in {path} is the name of one",
                    hint="settings of a profile belong in [profiles.NAME]",
                )
        else:
            _checked(name, value, path, "")
    for profile, table in document.get("profiles", {}).items():
        _table(table, path, f"profiles.{profile}")
        for name, value in table.items():
            _known(name, KEYS, path, f"profiles.{profile}.")
            _checked(name, value, path, f"profiles.{profile}.")
    for name, value in document.get("aliases", {}).items():
        if not isinstance(value, str):
            raise ConfigError(f"aliases.{name} in {path} is text, not {value!r}")
    for name, value in document.get("ask", {}).items():
        _known(name, ASK_KEYS, path, "ask.")
        kind = ASK_KEYS[name].type
        if type(value) is not kind:
            raise ConfigError(f"ask.{name} in {path} is {_KINDS[kind]}, not {value!r}")
    for name, value in document.get("local", {}).items():
        _known(name, LOCAL_KEYS, path, "local.")
        kind = LOCAL_KEYS[name].type
        if kind is dict:
            _table(value, path, f"local.{name}")
        elif type(value) is not kind:
            # The proxy's password may stand in any of these.
            shown = "" if name in ("upstream_proxy", "no_proxy") else f", not {value!r}"
            raise ConfigError(f"local.{name} in {path} is {_KINDS[kind]}{shown}")


def _known(name: str, names: Iterable[str], path: Path, prefix: str) -> None:
    if name in names:
        return
    raise ConfigError(f"{path} has no setting {prefix}{name}", hint=_nearest(name, names, prefix))


def _nearest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """A hint for a setting that is not one."""
    from difflib import get_close_matches

    for table, keys in (("local", LOCAL_KEYS), ("ask", ASK_KEYS)):
        if prefix != f"{table}." and name.removeprefix(f"{table}.") in keys:
            return f"it belongs below [{table}] in the file that irons config path prints"
    near = get_close_matches(name, sorted(names), n=1)
    return f"did you mean {prefix}{near[0]}?" if near else "irons config show lists them"


def check_key(name: str) -> None:
    """Raise `ConfigError` with the nearest one where there is no setting of this name."""
    if name not in KEYS:
        raise ConfigError(f"there is no setting {name!r}", hint=_nearest(name, KEYS))


def _checked(name: str, value: object, path: Path, prefix: str) -> None:
    try:
        typed(name, value)
    except ConfigError as error:
        raise ConfigError(f"{prefix}{error.message} (in {path})", hint=error.hint) from None


def _table(value: object, path: Path, name: str) -> None:
    if not isinstance(value, dict):
        # Not what it is: a key may have come to stand there.
        raise ConfigError(f"{name} in {path} is a table")
