"""Handlers: egress preset list, show, allow, diff."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING

from irons.errors import NotFound
from irons.presets.collecting import presets
from irons.terminal.words import LISTS
from irons.text import clean
from irons_plugins.egress.handlers import allow as allow_domains
from irons_plugins.egress.rows import Change, Drift, PresetHostRow, PresetRow

if TYPE_CHECKING:
    from irons.context import Context
    from irons.plugin.hook_data import Preset
    from irons.settings.scope import Scope


def list_presets(ctx: Context) -> Iterator[PresetRow]:
    """Return the presets there are."""
    for preset in presets(ctx.host, ctx.settings, ctx.progress).values():
        yield PresetRow(preset.name, preset.version, len(preset.hosts), preset.what, preset.sends)


def show(ctx: Context, *, name: str) -> Iterator[PresetHostRow]:
    """Return the hosts of a preset, and say what can be sent there."""
    preset = _named(ctx, name)
    ctx.progress(f"{preset.name}, as of {preset.version}: {preset.what}")
    ctx.progress(f"what a sandbox can send there: {preset.sends}")
    source = preset.hosts[0].source
    if source and all(host.source == source for host in preset.hosts):
        ctx.progress(f"the hosts are listed at {source}")
    for host in preset.hosts:
        yield PresetHostRow(host.pattern, host.what, host.source)


def allow(
    ctx: Context, *, name: str, scope: Scope, seconds: float | None, until: str | None
) -> Iterator[Change]:
    """Write a preset out as allow rules; a pattern that has a rule in this scope keeps it."""
    preset = _named(ctx, name)
    there = {rule.pattern: rule.list for rule in ctx.api.rules(scope.sandbox).rules}
    new = tuple(host.pattern for host in preset.hosts if host.pattern not in there)
    for pattern in (host.pattern for host in preset.hosts if host.pattern in there):
        ctx.progress(f"left as it is: {pattern} ({LISTS.get(there[pattern], clean(there[pattern]))})")
    ctx.progress(f"what {scope.who} can send there: {preset.sends}")
    if new:
        yield from allow_domains(
            ctx,
            domains=new,
            scope=scope,
            private=(),
            broad=False,
            note=_note(preset),
            seconds=seconds,
            until=until,
        )


def diff(ctx: Context, *, name: str, scope: Scope) -> Sequence[Drift]:
    """Return what the preset as it is now has and the rules do not, and what only an earlier version of it had."""
    preset = _named(ctx, name)
    rules = ctx.api.rules(scope.sandbox).rules
    own = {rule.pattern: rule.list for rule in rules}
    # A sandbox has the rules of all sandboxes too, unless one of its own says otherwise.
    inherited = {} if scope.sandbox is None else {rule.pattern: rule.list for rule in ctx.api.rules().rules}
    there = {pattern for pattern, listed in {**inherited, **own}.items() if listed == "allow"}
    hosts = {host.pattern for host in preset.hosts}
    added = [
        Drift("added", "allow", host.pattern, note=host.what)
        for host in preset.hosts
        if host.pattern not in there
    ]
    gone = [
        Drift("removed", "allow", rule.pattern, note=rule.note or "")
        for rule in rules
        if (rule.note or "").startswith(f"preset {preset.name} ") and rule.pattern not in hosts
    ]
    if not added and not gone:
        ctx.progress(f"the rules of {scope.who} have all of preset {preset.name}, as of {preset.version}")
    return [*added, *gone]


def _named(ctx: Context, name: str) -> Preset:
    known = presets(ctx.host, ctx.settings, ctx.progress)
    if name not in known:
        near = get_close_matches(name, known, 1)
        raise NotFound(
            f"there is no preset {name!r}",
            hint=f"did you mean {near[0]}?" if near else "irons egress preset list shows them",
        )
    return known[name]


def _note(preset: Preset) -> str:
    return f"preset {preset.name} {preset.version}"
