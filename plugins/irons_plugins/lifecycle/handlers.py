"""Handlers: start, stop, wait, destroy, status, list."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from irons.client.api import Sandbox
from irons.command import Result, View
from irons.errors import Conflict, IronsError, NotFound, Unsupported, UsageError
from irons_plugins.lifecycle import LISTED
from irons_plugins.lifecycle.destroyed import Destroyed, forget
from irons_plugins.lifecycle.several import Failures
from irons_plugins.lifecycle.views import told
from irons_plugins.lifecycle.waiting import patience, wait_for
from irons_plugins.selection import checked_labels, selected
from irons_plugins.ssh.connect.kept import end_kept

if TYPE_CHECKING:
    from irons.context import Context

_UP = ("starting", "running", "ready")
_DOWN = ("stopping", "stopped")
_RUNNING = ("running", "ready")


def start(
    ctx: Context,
    *,
    names: tuple[str, ...],
    everything: bool,
    labels: tuple[str, ...],
    without_boot: bool,
    at_once: bool,
    wait_timeout: float | None,
) -> Sandbox | Iterator[Sandbox]:
    """Start sandboxes, all at the same time; one that is ready already is a success."""
    if without_boot:
        ctx.api.need("rules", "a server that can start a sandbox without its services")
    chosen = selected(ctx, names, everything=everything, labels=labels)
    timeout = 0.0 if at_once else patience(ctx, wait_timeout)
    rows = _each_brought(
        ctx, chosen, _begin_bare if without_boot else bring_up, "ready", None if at_once else timeout
    )
    return next(rows) if len(names) == 1 else rows


def stop(
    ctx: Context,
    *,
    names: tuple[str, ...],
    everything: bool,
    labels: tuple[str, ...],
    at_once: bool,
    wait_timeout: float | None,
) -> Sandbox | Iterator[Sandbox]:
    """Stop sandboxes, all at the same time; one that has stopped already is a success."""
    chosen = selected(ctx, names, everything=everything, labels=labels)
    timeout = 0.0 if at_once else patience(ctx, wait_timeout)
    rows = _each_brought(ctx, chosen, bring_down, "stopped", None if at_once else timeout)
    return next(rows) if len(names) == 1 else rows


def _begin_bare(ctx: Context, name: str) -> None:
    bring_up(ctx, name, boot=False)


def bring_up(ctx: Context, name: str, *, boot: bool = True) -> None:
    """Ask for a sandbox to be started; one that is up or on its way is a success."""
    try:
        ctx.api.start(name, boot=boot)
    except Conflict:
        if ctx.api.status(name).status not in _UP:
            raise


def bring_down(ctx: Context, name: str) -> None:
    """Ask for a sandbox to be stopped, and end the kept connections to it; one that is down is a success."""
    try:
        ctx.api.stop(name)
    except Conflict:
        if ctx.api.status(name).status not in _DOWN:
            raise
    end_kept(ctx.settings, name)


def _each_brought(
    ctx: Context,
    names: tuple[str, ...],
    begin: Callable[[Context, str], None],
    state: str,
    timeout: float | None,
) -> Iterator[Sandbox]:
    """Begin with each, then yield each as it is in `state`, all within `timeout` seconds; without waiting where that is None."""
    failures = Failures(ctx, len(names), "started" if state == "ready" else state)
    begun: list[str] = []
    for name in names:
        try:
            begin(ctx, name)
        except IronsError as error:
            failures.add(name, error)
        else:
            begun.append(name)
    left = timeout or 0.0
    deadline = time.monotonic() + left
    for name in begun:
        try:
            yield told(_now(ctx, name) if timeout is None else wait_for(ctx, name, state, left))
        except IronsError as error:
            failures.add(name, error)
        left = max(0.0, deadline - time.monotonic())
    failures.end()


def wait(
    ctx: Context,
    *,
    names: tuple[str, ...],
    everything: bool,
    labels: tuple[str, ...],
    state: str,
    wait_timeout: float | None,
) -> Iterator[Sandbox]:
    """Wait for each sandbox to be in `state`, all within one time limit."""
    chosen = selected(ctx, names, everything=everything, labels=labels)
    deadline = time.monotonic() + patience(ctx, wait_timeout)
    for name in chosen:
        yield told(wait_for(ctx, name, state, max(0.0, deadline - time.monotonic())))


def destroy(
    ctx: Context,
    *,
    names: tuple[str, ...],
    everything: bool,
    labels: tuple[str, ...],
    if_exists: bool,
    force: bool,
    wait_timeout: float | None,
) -> Iterator[Destroyed]:
    """Destroy sandboxes; each is tried, and the exit code is the worst of theirs."""
    asks = not force and ctx.streams.stdin_is_tty and not ctx.settings.no_input
    if (everything or labels) and not force and not asks:
        raise UsageError(
            f"{'--all' if everything else '--label'} destroys only with --force where it can't ask",
            hint="irons list shows the sandboxes",
        )
    try:
        chosen = selected(ctx, names, everything=everything, labels=labels)
    except NotFound:
        if not if_exists:
            raise
        chosen = ()
    if not chosen:
        ctx.progress("there is no sandbox to destroy")
        return iter(())
    if asks:
        these = chosen[0] if len(chosen) == 1 else f"these {len(chosen)} sandboxes: {', '.join(chosen)}"
        named = not everything and not labels
        verb = "Stop and destroy" if named and any(_runs(ctx, name) for name in chosen) else "Destroy"
        if not ctx.confirm(f"{verb} {these} for good?", otherwise="--force does not ask"):
            raise IronsError("nothing was destroyed")
    # What --all chose, or the answer yes confirmed, may be stopped too.
    force = force or asks or everything or bool(labels)
    return _each_destroyed(ctx, chosen, force=force, if_exists=if_exists, timeout=wait_timeout)


def _runs(ctx: Context, name: str) -> bool:
    try:
        return ctx.api.status(name).status in _RUNNING
    except IronsError:
        return False


def _each_destroyed(
    ctx: Context, names: tuple[str, ...], *, force: bool, if_exists: bool, timeout: float | None
) -> Iterator[Destroyed]:
    failures = Failures(ctx, len(names), "destroyed")
    if force and len(names) > 1:
        _stop_all(ctx, names)
    for name in names:
        try:
            destroy_one(ctx, name, force=force, timeout=timeout)
        except NotFound as error:
            forget(ctx, name)
            if not if_exists:
                failures.add(name, error)
        except IronsError as error:
            failures.add(name, error)
        else:
            yield Destroyed(name)
    failures.end()


def _stop_all(ctx: Context, names: Iterable[str]) -> None:
    """Begin to stop those that run, so that all stop at the same time; a failure here is reported when it is destroyed."""
    for name in names:
        with suppress(IronsError):
            if ctx.api.status(name).status in _RUNNING:
                ctx.api.stop(name)


def destroy_held(ctx: Context, name: str) -> None:
    """Destroy a sandbox that the server holds for this command only; where that fails, a line names when the server does it."""
    try:
        destroy_one(ctx, name, force=True)
    except NotFound:
        pass
    except KeyboardInterrupt:
        ctx.progress(f"irons: {name} is destroyed by the server within two minutes")
        raise
    except IronsError as error:
        ctx.progress(f"irons: {name} is destroyed by the server within two minutes: {error.message}")


def destroy_one(ctx: Context, name: str, *, force: bool, timeout: float | None = None) -> None:
    """Destroy a sandbox, with `force` a running one too, and forget what this machine keeps of it.

    Raises:
        Conflict: It is running.
        TimedOut: It did not stop in `timeout` seconds (by default the setting).
    """
    state = ctx.api.status(name).status if force else ""
    if state in _RUNNING:
        ctx.api.stop(name)
    if state in (*_RUNNING, "stopping"):
        wait_for(ctx, name, "stopped", patience(ctx, timeout))
    try:
        ctx.api.destroy(name)
    except Conflict as error:
        if not force or state in _RUNNING:
            if not error.hint:
                error.hint = f"irons destroy {name} --force stops it first"
            raise
        # It was still being made when it was asked how it is, and is further on by now.
        ctx.api.stop(name)
        wait_for(ctx, name, "stopped", patience(ctx, timeout))
        ctx.api.destroy(name)
    forget(ctx, name)


def status(
    ctx: Context, *, names: tuple[str, ...], everything: bool, labels: tuple[str, ...]
) -> Sandbox | Result:
    """Return what the server knows of sandboxes; several are shown as `list` shows them."""
    chosen = selected(ctx, names, everything=everything, labels=labels)
    rows = _each_now(ctx, chosen)
    return next(rows) if len(names) == 1 else Result(rows, view=LISTED)


def _each_now(ctx: Context, names: tuple[str, ...]) -> Iterator[Sandbox]:
    failures = Failures(ctx, len(names), "shown")
    for name in names:
        try:
            yield told(_now(ctx, name))
        except IronsError as error:
            failures.add(name, error)
    failures.end()


def list_all(ctx: Context, *, quiet: bool, labels: tuple[str, ...]) -> Result:
    """Return all sandboxes, or those with these labels; where the server cannot list them, those this client has used."""
    rows: Iterable[Sandbox]
    checked_labels(labels, valued=False)
    try:
        rows = ctx.api.list(labels)
    except Unsupported:
        if labels:
            raise
        known = ctx.names.read()
        ctx.progress("this server has no list of sandboxes: these are the ones this client has used")
        rows = tuple(Sandbox(name, state) for name, state in sorted(known.items()))
    else:
        if not labels:
            from irons.client.refreshing import keep_names

            keep_names(ctx.settings, rows)
            ctx.api.made.keep(row.id for row in rows)
    return Result(map(told, rows), view=View(line="irons_plugins.lifecycle.views:name") if quiet else None)


def _now(ctx: Context, name: str) -> Sandbox:
    try:
        found = ctx.api.status(name)
    except NotFound:
        ctx.names.forget(name)
        raise
    ctx.names.put(name, found.status)
    return found
