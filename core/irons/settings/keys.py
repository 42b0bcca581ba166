"""Every setting: the variable, the default, the help and the values of each key that `config.toml` may have."""

from __future__ import annotations

from typing import Any

from irons.command import FORMATS
from irons.record import NamedTuple


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
    "incus_socket": LocalKey(
        str, "The unix socket of the Incus that --engine incus uses.", "/var/lib/incus/unix.socket"
    ),
    "fleet_listen": LocalKey(
        str,
        "The address to which members of the fleet connect, HOST:PORT; read at the start.",
        example="192.0.2.1:7443",
    ),
    "member_log": LocalKey(
        int, "How many MiB of its audit log a member of a fleet keeps for a server that is away.", 1024
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
