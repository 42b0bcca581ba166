"""What hooks get and return, beyond commands and backends; apart from the hooks, since most starts need none of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from irons.record import NamedTuple


class CompletionState(NamedTuple):
    """What a function of `irons_completions` has to go by.

    Attributes:
        words: The words of the line before the one being typed, after `irons`.
        typed: The word being typed, as far as it is.
        sandboxes: Sandbox names on hand, each with its state.
        domains: Hosts on hand, each with what is known of it.
        settings: The plugin's own settings.
    """

    words: tuple[str, ...]
    typed: str
    sandboxes: Mapping[str, str]
    domains: Mapping[str, str]
    settings: Mapping[str, Any]


class PromptStatus(NamedTuple):
    """What the prompt knows when it asks `irons_toolbar`.

    Attributes:
        backend: Where commands go: `local`, or a host.
        profile: The profile in use.
        sandbox: The sandbox in use; None where none is.
        mode: The egress mode that applies to it, or to all sandboxes without one; None while it is not known.
        states: How many sandboxes are in which state; None while that is not known, and in xonsh.
        denied: Connections refused since the prompt was opened; None where that is not known, and in xonsh.
        stale: Whether the last look at the server failed, and the rest is older.
        face: `prompt` or `xonsh`.
    """

    backend: str = ""
    profile: str = ""
    sandbox: str | None = None
    mode: str | None = None
    states: Mapping[str, int] | None = None
    denied: int | None = None
    stale: bool = False
    face: str = "prompt"


class PluginCheck(NamedTuple):
    """What a check of `irons_checks` found: a row of `irons doctor`.

    Attributes:
        name: What is checked, in a few words.
        ok: Whether all is well; where it is not, `irons doctor` exits with 1.
        what: What was found.
        fix: The line that repairs it; empty where all is well.
    """

    name: str
    ok: bool
    what: str = ""
    fix: str = ""


class PresetHost(NamedTuple):
    """A host of a preset.

    Attributes:
        pattern: A name or a pattern, as `egress allow` takes it.
        what: What is there, in a few words.
        source: The URL of a page that lists it.
    """

    pattern: str
    what: str = ""
    source: str = ""


class Preset(NamedTuple):
    """A known set of hosts, as `irons_presets` returns it.

    Attributes:
        name: Letters, digits, `_` and `-`, at most 50.
        version: The date on which the hosts were last compared with their sources.
        what: What the hosts are for, in one sentence.
        sends: What a sandbox can send there, in one sentence.
        hosts: The hosts, at most 500.
    """

    name: str
    version: str
    what: str
    sends: str
    hosts: tuple[PresetHost, ...]


class AskedQuestion(NamedTuple):
    """A question of mode `ask`, as `irons_ask` gets it.

    Its texts are made to be passed on: no link or markup is in them (`evil[.]example`), and each is 100 bytes at most. They are the sandbox's words.

    Attributes:
        id: Names it; `irons ask answer ID once` answers it.
        sandbox: The sandbox's name.
        host: Where a connection was tried to.
        port: The port there.
        protocol: What it spoke.
        since: When it was asked, RFC 3339, UTC.
        count: Connections that were tried.
        waiting: Those of them that wait.
        requests: How often the agent inside asked for it, without a connection.
        may: The answers that a plugin may give.
        reason: The agent's words; empty unless the setting `[ask] reason` passes them on.
    """

    id: str
    sandbox: str
    host: str
    port: int
    protocol: str = ""
    since: str = ""
    count: int = 0  # type: ignore[assignment]
    waiting: int = 0
    requests: int = 0
    may: tuple[str, ...] = ()
    reason: str = ""


class LifecycleChange(NamedTuple):
    """A step in a sandbox's life, as `irons_lifecycle` gets it.

    Attributes:
        kind: `ready`, `stopped` or `destroyed`; or `lost`, where a plugin was too slow for what there was to say. More may come:
            pass over what you don't know.
        sandbox: The sandbox's name; empty for `lost`.
        id: Its id.
        at: When, RFC 3339, UTC.
        lost: How many events and changes were not delivered, for `lost`.
    """

    kind: str
    sandbox: str
    id: str = ""
    at: str = ""
    lost: int = 0
