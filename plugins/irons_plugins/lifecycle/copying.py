"""Handlers of `snapshot …`, `restore` and `fork`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from irons.client.names import NameCache
from irons.errors import ConfigError, IronsError, NotFound, UsageError
from irons.text import clean, size_text
from irons.wire_values import LONGEST_NOTE, SANDBOX_NAME
from irons_plugins.lifecycle.creating import policy_of
from irons_plugins.lifecycle.handlers import bring_down
from irons_plugins.lifecycle.several import Failures
from irons_plugins.lifecycle.views import keys_inside, told
from irons_plugins.lifecycle.waiting import CREATE_GRACE, patience, wait_for
from irons_plugins.ssh.connect.identities import Identities

if TYPE_CHECKING:
    from collections.abc import Callable

    from irons.client.api import Sandbox
    from irons.client.models.sandboxes import CreateOptions
    from irons.client.models.snapshots import Forked, SnapshotInfo
    from irons.command import Result
    from irons.context import Context

_RUNNING = ("running", "ready")


def create_snapshot(ctx: Context, *, name: str, snapshot: str | None, note: str | None) -> SnapshotInfo:
    """Make a snapshot of a sandbox."""
    if note is not None and len(note) > LONGEST_NOTE:
        raise UsageError(f"--note takes at most {LONGEST_NOTE} characters, not {len(note)}")
    if snapshot is not None and re.fullmatch(SANDBOX_NAME, snapshot) is None:
        raise UsageError(
            "--as takes 1 to 63 characters: lower-case letters, digits and hyphens, with no hyphen at either end"
        )
    with ctx.waiting(f"{name}: keeping its files"):
        made = ctx.api.snapshot(name, snapshot, note=note)
    _known(ctx).put(made.name, f"of {made.sandbox}")
    return made


def list_snapshots(ctx: Context, *, name: str | None) -> tuple[SnapshotInfo, ...]:
    """Return the snapshots of a sandbox, or all there are."""
    found = ctx.api.snapshots(name)
    if name is None:
        _known(ctx).replace({each.name: f"of {each.sandbox}" for each in found})
    return found


def remove_snapshot(ctx: Context, *, snapshot: str) -> None:
    """Remove a snapshot."""
    ctx.api.remove_snapshot(snapshot)
    _known(ctx).forget(snapshot)


def restore(ctx: Context, *, name: str, snapshot: str, yes: bool, wait_timeout: float | None) -> SnapshotInfo:
    """Bring back the files of a snapshot; a sandbox that runs is stopped first.

    Returns:
        The snapshot that keeps the files that were there.
    """
    if ctx.api.status(name).status in _RUNNING:
        if snapshot not in {each.name for each in ctx.api.snapshots(name)}:
            raise NotFound(f"{name} has no snapshot {snapshot}", hint=f"irons snapshot list {name}")
        asks = not yes and ctx.streams.stdin_is_tty and not ctx.settings.no_input
        if asks and not ctx.confirm(f"Stop {name} and restore {snapshot}?", otherwise="--yes does not ask"):
            raise IronsError("nothing was restored")
        bring_down(ctx, name)
        wait_for(ctx, name, "stopped", patience(ctx, wait_timeout))
    with ctx.waiting(f"{name}: restoring {snapshot}"):
        kept = ctx.api.restore(name, snapshot)
    _known(ctx).put(kept.name, f"of {kept.sandbox}")
    return kept


def fork(
    ctx: Context,
    *,
    name: str,
    names: tuple[str, ...],
    mode: str | None,
    allow: tuple[str, ...],
    policy: str | None,
    line: str | None,
    keep: bool,
    memory: bool,
    at_once: bool,
    wait_timeout: float | None,
) -> Sandbox | Iterator[Sandbox] | Result:
    """Make copies of a sandbox, all of them or none, and wait until they are ready; with `line` one copy to try that in.

    Raises:
        UsageError: A name is there twice, options do not go together, or a pattern or the policy is invalid.
        IronsError: It failed; with `line` the exit code is 125.
        KeyboardInterrupt: Ctrl-C while `line` is tried; the copy is destroyed.
    """
    if memory:
        raise UsageError(
            f"memory is not copied: it has the identity of {name}, and connections that are not the copy's",
            hint="without --memory a copy has the files, and boots",
        )
    wish = policy_of(mode, allow, policy)
    if line is None:
        if keep:
            raise UsageError("--keep goes with --try")
        made = _begun(ctx, name, names, wish)
        rows = _ready(ctx, made.sandboxes, None if at_once else patience(ctx, wait_timeout))
        return next(rows) if len(names) == 1 else rows
    if at_once:
        raise UsageError("--try and --no-wait do not go together")
    from irons_plugins.lifecycle.trying import attempt, new_name

    new = new_name(names)

    def begun() -> Callable[[], object]:
        made = _begun(ctx, name, (new,), wish, held=True)
        return lambda: tuple(_ready(ctx, made.sandboxes, patience(ctx, wait_timeout)))

    return attempt(ctx, new, line, given=bool(names), keep=keep, begun=begun)


def copies(ctx: Context, name: str, names: tuple[str, ...], *, timeout: float | None) -> tuple[Sandbox, ...]:
    """Make copies of a sandbox with its policy, all of them or none, and return them when they are ready; raises like `fork`."""
    made = _begun(ctx, name, names, {}, told=False)
    return tuple(_ready(ctx, made.sandboxes, patience(ctx, timeout)))


def _begun(
    ctx: Context,
    name: str,
    names: tuple[str, ...],
    wish: CreateOptions,
    *,
    held: bool = False,
    told: bool = True,
) -> Forked:
    if not names or len(set(names)) < len(names):
        raise UsageError("a name is there twice" if names else "a fork takes the names of the copies")
    with ctx.waiting(f"{name}: keeping its files"):
        made = ctx.api.fork(name, names, held=held, mode=wish.get("mode"), rules=wish.get("rules"))
    _remember(ctx, name, names)
    if wish.get("mode"):
        from irons.client.refreshing import refresh_after_change

        refresh_after_change(ctx.api, ctx.settings)
    if told and made.pause is not None:
        ctx.progress(f"{name} was paused for {pause(made.pause)}")
    return made


def _remember(ctx: Context, name: str, names: tuple[str, ...]) -> None:
    """Remember of the copies which private key opens them: the one of the original."""
    identities = Identities.of(ctx.settings)
    identity = identities.of_sandbox(name)
    for each in names:
        ctx.names.put(each, "creating")
        if identity is not None:
            try:
                identities.remember(each, identity)
            except ConfigError as error:
                ctx.progress(f"irons: the key's path is not remembered: {error.message}")
                return


def _ready(ctx: Context, made: tuple[Sandbox, ...], timeout: float | None) -> Iterator[Sandbox]:
    failures = Failures(ctx, len(made), "started")
    left = timeout or 0.0
    deadline = time.monotonic() + left
    for row in made:
        try:
            if timeout is not None:
                row = wait_for(ctx, row.name, "ready", left, grace=CREATE_GRACE)  # noqa: PLW2901 (as it is by then)
            if keys := keys_inside(row):
                ctx.progress(keys)
            yield told(row)
        except IronsError as error:
            failures.add(row.name, error)
        left = max(0.0, deadline - time.monotonic())
    failures.end()


def _known(ctx: Context) -> NameCache:
    return NameCache.of(ctx.settings, what="snapshots")


def made(snapshot: SnapshotInfo) -> str:
    """Return what became of a snapshot, in one line."""
    paused = "" if snapshot.pause is None else f"; it was paused for {pause(snapshot.pause)}"
    return f"{clean(snapshot.name)} is a snapshot of {clean(snapshot.sandbox)}{paused}"


def restored(kept: SnapshotInfo) -> str:
    """Return what a restore did, in one line."""
    sandbox = clean(kept.sandbox)
    return f"{sandbox} is restored; its files as they were are the snapshot {clean(kept.name)}; irons start {sandbox} starts it"


def size(value: object) -> str:
    """Return the size of a snapshot, for a table."""
    return size_text(value) if isinstance(value, int) else "not counted yet"


def pause(value: object) -> str:
    """Return how long a sandbox was paused, for people."""
    if not isinstance(value, int | float):
        return ""
    return f"{value * 1000:.0f} ms" if value < 1 else f"{value:.1f} s"
