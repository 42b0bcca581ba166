"""What completion and prompts have on hand, asked for again: sandbox names, domains, images, the egress mode; kept in the cache of one backend.

The prompt does it in a thread of its own, xonsh and shell completion in a process that no one waits for.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING

from irons.client.names import STALE, NameCache
from irons.client.scoped_names import KEYS, keep_access, keep_api_keys, keep_rules
from irons.ending import ENDS, noted
from irons.errors import IronsError, NotFound, Unsupported
from irons.terminal.words import verdict_word

if TYPE_CHECKING:
    from irons.client.api import Api, Sandbox
    from irons.settings.settings import Settings
    from irons_policy.event import Event

RECENT = 500
"""Events whose hosts are worth offering."""

MOST_DOMAINS = 2000
"""Domains kept."""

MOST_SCOPES = 8
"""Sandboxes whose rules and keys are asked for, next to the one in use."""

SOON = 2.0
"""Seconds between two refreshes at least."""

MODE = "mode"
"""Key of the facts: the egress mode of all sandboxes."""

OWN = "mode/"
"""Prefix of the facts' keys for the mode that applies to one sandbox: to each with a mode of its own, and to the one in use."""


def refresh_names(api: Api, settings: Settings) -> dict[str, str]:
    """Ask for the sandboxes, keep their states by name and their labels, and return the states. Raises `IronsError`."""
    return keep_names(settings, api.list())


def keep_names(settings: Settings, sandboxes: Iterable[Sandbox]) -> dict[str, str]:
    """Keep the states by name and the labels of all sandboxes that there are, and return the states."""
    known = tuple(sandboxes)
    _keep(NameCache.of(settings, what="labels"), _counted(known))
    _keep(NameCache.of(settings, what=ENDS), noted(known))
    return _keep(NameCache.of(settings), {sandbox.name: sandbox.status for sandbox in known})


def _counted(sandboxes: Iterable[Sandbox]) -> dict[str, str]:
    """Each label as it is typed, `key=value`, with how many sandboxes have it."""
    counts = Counter(f"{key}={value}" for sandbox in sandboxes for key, value in sandbox.labels.items())
    return {
        label: f"{count} sandbox{'es' if count > 1 else ''}"
        for label, count in counts.most_common(MOST_DOMAINS)
    }


def refresh_domains(api: Api, settings: Settings, sandboxes: Iterable[str] = ()) -> dict[str, str]:
    """Ask for the rules and the latest events, keep each pattern and host with what is known of it, and return them.

    Args:
        api: The client.
        settings: Whose cache it is.
        sandboxes: Whose rules to ask for, and whose events at a server that has no events of all sandboxes together.

    Raises:
        IronsError: The rules can't be had; events that can't are done without.
    """
    rules = api.rules()
    keep_rules(settings, None, rules.rules)
    for name in _scopes(settings, sandboxes):
        with suppress(Unsupported):
            try:
                rules_of_it = api.rules(name).rules
            except NotFound:
                # It is destroyed, and its rules are.
                rules_of_it = ()
            keep_rules(settings, name, rules_of_it)
    domains = dict.fromkeys(rules.allowed, "allowed") | dict.fromkeys(rules.denied, "denied")
    for event in _latest(api, sandboxes):
        if event.host and event.host not in domains and len(domains) < MOST_DOMAINS:
            domains[event.host] = f"seen: {verdict_word(event.verdict, allowed=event.allowed)}"
    return _keep(NameCache.of(settings, what="domains"), domains)


def _scopes(settings: Settings, sandboxes: Iterable[str]) -> dict[str, None]:
    """The sandbox in use, and the first of all."""
    used = settings["sandbox"]
    return dict.fromkeys([*([used] if used else []), *islice(sandboxes, MOST_SCOPES)])


def refresh_keys(api: Api, settings: Settings, sandboxes: Iterable[str] = ()) -> dict[str, str]:
    """Ask for the API keys, and the keys that open the sandbox in use and the first of all, and keep what they are. Raises `IronsError`."""
    for name in _scopes(settings, sandboxes):
        with suppress(Unsupported, NotFound):
            keep_access(settings, name, api.access(name))
    keep_api_keys(settings, api.keys())
    return NameCache.of(settings, what=KEYS).read()


def refresh_images(api: Api, settings: Settings) -> dict[str, str]:
    """Ask for the images that sandboxes can start from, keep each name with what it is, and return them. Raises `IronsError`."""
    named = {image.name: image.os or "image" for image in api.images()}
    return _keep(NameCache.of(settings, what="images"), named)


def refresh_snapshots(api: Api, settings: Settings) -> dict[str, str]:
    """Ask for the snapshots, keep each name with the sandbox that it is of, and return them. Raises `IronsError`."""
    named = {each.name: f"of {each.sandbox}" for each in api.snapshots()}
    return _keep(NameCache.of(settings, what="snapshots"), named)


def refresh_facts(api: Api, settings: Settings) -> dict[str, str]:
    """Ask for the egress modes, keep them, and return what is known under `MODE` and `OWN`. Raises `IronsError`.

    The sandbox in use is asked for by itself: it may be named by its id, or not exist, which is an empty mode.
    """
    found = api.mode()
    facts = {MODE: found.mode, **{f"{OWN}{name}": mode for name, mode in found.differs.items()}}
    used = settings["sandbox"]
    if used:
        facts[f"{OWN}{used}"] = _mode_of(api, used, facts[MODE])
    return _keep(NameCache.of(settings, what="facts"), facts)


def _mode_of(api: Api, sandbox: str, shared: str) -> str:
    """Return the mode that applies to a sandbox; empty where there is none of this name."""
    try:
        return api.mode(sandbox).mode
    except Unsupported:
        # A plain v0 server has one mode, which is that of every sandbox.
        return shared
    except NotFound:
        return ""


def differing(facts: Mapping[str, str]) -> dict[str, str]:
    """Return the sandboxes whose mode is another than that of all, and theirs."""
    own = {key.removeprefix(OWN): mode for key, mode in facts.items() if key.startswith(OWN)}
    return {name: mode for name, mode in own.items() if mode not in ("", facts.get(MODE))}


def mode_for(facts: Mapping[str, str], sandbox: str | None, known: Container[str] = ()) -> str | None:
    """Return the mode that applies to a sandbox, or with None to all; None where it is not known, empty where there is no such sandbox.

    Args:
        facts: What `refresh_facts` kept.
        sandbox: The sandbox.
        known: The names of the sandboxes that there were when the facts were asked for: without a mode of their own they
            have that of all.
    """
    if sandbox is None:
        return facts.get(MODE) or None
    own = facts.get(f"{OWN}{sandbox}")
    if own is not None:
        return own
    return facts.get(MODE) or None if sandbox in known else None


def exceptions_on_hand(settings: Settings) -> dict[str, str]:
    """Return the sandboxes with another mode than that of all; none where one is in use, whose own mode says it."""
    return {} if settings["sandbox"] else differing(NameCache.of(settings, what="facts").read())


def mode_on_hand(settings: Settings) -> tuple[str | None, float]:
    """Return the mode that applies to the sandbox in use, or to all without one, as `mode_for`, and its age in seconds."""
    facts, names = NameCache.of(settings, what="facts"), NameCache.of(settings)
    # A sandbox that was made since may have a mode of its own.
    known = names.read() if facts.age() <= names.age() else {}
    return mode_for(facts.read(), settings["sandbox"], known), facts.age()


def refresh_after_change(api: Api, settings: Settings) -> None:
    """Ask for the modes once more: a command has just changed one, which a prompt may show, and by which xonsh knows that it is to watch."""
    with suppress(IronsError):
        refresh_facts(api, settings)


def refresh_detached(settings: Settings, *, urgent: bool = False) -> None:
    """Start a process that refreshes everything, without waiting for it, unless one has been started in the last `STALE` seconds.

    Only for a backend that a command has been used with before; and a local one that is down stays down.

    Args:
        settings: Whose cache it is.
        urgent: Something that is shown is not known: refresh what is not old yet, too, if none was started in the last `SOON` seconds.
    """
    names = NameCache.of(settings)
    if not (0.0 if urgent else STALE) <= names.age() < float("inf") or not names.claim(
        SOON if urgent else STALE
    ):
        return
    # The connection goes by environment: an argument list can be read by everyone on the machine.
    chosen = {
        "IRONS_API_URL": settings.api_url,
        "IRONS_API_KEY": settings.api_key or "",
        "IRONS_NO_START": "1",
        **({} if settings.profile_source == "default" else {"IRONS_PROFILE": settings.profile}),
    }
    process = subprocess.Popen(
        # -P: what lies in the working directory must not be imported.
        [sys.executable, "-P", "-m", "irons.client.refreshing"],
        env={**settings.env, **chosen},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # A shell lives on: what has ended is not left behind in its list of processes.
    threading.Thread(target=process.wait, name="irons-refreshing", daemon=True).start()


def main() -> int:
    """Refresh everything that the settings of this process choose; what can't be had stays as it was."""
    from irons.client.api import open_api
    from irons.host import PluginHost
    from irons.settings.settings import load

    try:
        settings = load()
        with open_api(settings, PluginHost(warn=lambda _: None)) as api:
            names = tuple(_try(lambda: refresh_names(api, settings)))
            _try(lambda: refresh_domains(api, settings, names))
            _try(lambda: refresh_facts(api, settings))
            _try(lambda: refresh_images(api, settings))
            _try(lambda: refresh_snapshots(api, settings))
            _try(lambda: refresh_keys(api, settings, names))
    except IronsError:
        return 1
    return 0


def _try(refresh: Callable[[], dict[str, str]]) -> dict[str, str]:
    try:
        return refresh()
    except IronsError:
        return {}


def _latest(api: Api, sandboxes: Iterable[str]) -> list[Event]:
    """The latest events, newest first; none where the server has none to give."""
    try:
        return list(reversed(api.audit(limit=RECENT).events))
    except Unsupported:
        pass  # then each sandbox is asked
    except IronsError:
        return []
    found: list[Event] = []
    for name in list(sandboxes)[:8]:
        try:
            found += reversed(api.audit(name).events[-RECENT:])
        except IronsError:
            continue
    return found


def _keep(cache: NameCache, found: dict[str, str]) -> dict[str, str]:
    # What a server calls a sandbox may be hostile text; what can't be typed is not worth offering.
    found = {word: about for word, about in found.items() if word and word.isprintable() and " " not in word}
    if cache.read() == found:
        cache.touch()
    else:
        cache.replace(found)
    return found


if __name__ == "__main__":
    sys.exit(main())
