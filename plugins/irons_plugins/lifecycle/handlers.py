"""Handlers: start, stop, wait, destroy, status, list."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from irons.api import Sandbox
from irons.command import Result, View
from irons.errors import Conflict, IronsError, NotFound, Unsupported
from irons_plugins.lifecycle.waiting import patience, wait_for

if TYPE_CHECKING:
    from irons.context import Context

_UP = ("starting", "running", "ready")
_DOWN = ("stopping", "stopped")
_RUNNING = ("running", "ready")


def start(ctx: Context, *, name: str, at_once: bool, wait_timeout: float | None) -> Sandbox:
    """Start a sandbox; one that is ready already is a success."""
    try:
        ctx.api.start(name)
    except Conflict:
        if ctx.api.status(name).status not in _UP:
            raise
    if at_once:
        return _now(ctx, name)
    return wait_for(ctx, name, "ready", patience(ctx, wait_timeout))


def stop(ctx: Context, *, name: str, at_once: bool, wait_timeout: float | None) -> Sandbox:
    """Stop a sandbox; one that has stopped already is a success."""
    try:
        ctx.api.stop(name)
    except Conflict:
        if ctx.api.status(name).status not in _DOWN:
            raise
    if at_once:
        return _now(ctx, name)
    return wait_for(ctx, name, "stopped", patience(ctx, wait_timeout))


def wait(
    ctx: Context, *, names: tuple[str, ...], state: str, wait_timeout: float | None
) -> Iterator[Sandbox]:
    """Wait for each sandbox to be in `state`, all within one time limit."""
    import time

    deadline = time.monotonic() + patience(ctx, wait_timeout)
    for name in names:
        yield wait_for(ctx, name, state, max(0.0, deadline - time.monotonic()))


class Destroyed(NamedTuple):
    """A sandbox that is no more."""

    name: str
    status: str = "destroyed"


def destroy(
    ctx: Context, *, names: tuple[str, ...], force: bool, wait_timeout: float | None
) -> Iterator[Destroyed]:
    """Destroy sandboxes; each is tried, and the exit code is the worst of theirs."""
    if not force and ctx.streams.reads_person and not ctx.settings.no_input:
        these = names[0] if len(names) == 1 else f"these {len(names)} sandboxes: {', '.join(names)}"
        if not ctx.confirm(f"Destroy {these} for good?", otherwise="--force does not ask"):
            raise IronsError("nothing was destroyed")
    return _each_destroyed(ctx, dict.fromkeys(names), force=force, timeout=wait_timeout)


def _each_destroyed(
    ctx: Context, names: Collection[str], *, force: bool, timeout: float | None
) -> Iterator[Destroyed]:
    failed: list[IronsError] = []
    for name in names:
        try:
            destroy_one(ctx, name, force=force, timeout=timeout)
        except IronsError as error:
            if isinstance(error, NotFound):
                _forget(ctx, name)
            if len(names) == 1:
                raise
            failed.append(error)
            ctx.progress(f"irons: {name}: {error.message}")
        else:
            yield Destroyed(name)
    if failed:
        worst = max(failed, key=lambda error: error.exit_code)
        summary = IronsError(f"{len(failed)} of {len(names)} sandboxes were not destroyed", hint=worst.hint)
        summary.code, summary.exit_code = worst.code, worst.exit_code
        raise summary


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
    _forget(ctx, name)


def _forget(ctx: Context, name: str) -> None:
    from irons_plugins.ssh.config_handlers import left

    ctx.names.forget(name)
    left(ctx, name)
    if ctx.session is not None and ctx.settings["sandbox"] == name:
        ctx.session.use(None)


def status(ctx: Context, *, name: str) -> Sandbox:
    """Return what the server knows of a sandbox."""
    return _now(ctx, name)


def list_all(ctx: Context, *, quiet: bool) -> Result:
    """Return all sandboxes; where the server cannot list them, those this client has used."""
    rows: Iterable[Sandbox]
    try:
        rows = ctx.api.list()
    except Unsupported:
        known = ctx.names.read()
        ctx.progress("this server has no list of sandboxes: these are the ones this client has used")
        rows = tuple(Sandbox(name, state) for name, state in sorted(known.items()))
    else:
        ctx.names.replace({row.name: row.status for row in rows})
    return Result(rows, view=View(line="irons_plugins.lifecycle.views:name") if quiet else None)


def _now(ctx: Context, name: str) -> Sandbox:
    try:
        found = ctx.api.status(name)
    except NotFound:
        ctx.names.forget(name)
        raise
    ctx.names.put(name, found.status)
    return found
