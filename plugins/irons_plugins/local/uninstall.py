"""Taking irons off a machine: what there is, and its removal, files of subordinate ids included.

A purge needs nothing that runs: a control plane that answers is asked to destroy its sandboxes, and what is there
after that is ended and removed from here, so that a broken database or state keeps no one from being rid of irons.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from irons.errors import IronsError, LocalError, NotFound
from irons.record import NamedTuple
from irons_local.bundle.machine import Machine
from irons_local.daemon import client
from irons_local.daemon.survivors import end, survivors
from irons_local.engines.homes import is_unfinished, sandbox_of
from irons_local.engines.protocol import Kit
from irons_local.errors import CellError, EngineError
from irons_local.keeper import daemonize
from irons_local.linux.idmap import IdMapError, outer_map
from irons_local.linux.remove_tree import remove_tree
from irons_local.problems import Problem
from irons_plugins.local import systemd
from irons_plugins.ssh.config.blocks import Installed
from irons_plugins.ssh.connect.kept import end_all
from irons_plugins.ssh.keys.own_keys import locked_out

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from irons.context import Context
    from irons_local.cell.layout import Namespaces, Veth
    from irons_local.engines.protocol import Engine
    from irons_local.paths import Paths


class Item(NamedTuple):
    """Something that is removed."""

    what: str
    path: str


def find(ctx: Context, paths: Paths, *, purge: bool) -> tuple[Item, ...]:
    """Return what irons has on this machine: sandboxes, unit, SSH include; with `purge` processes, images and everything else too.

    Raises:
        LocalError: Without `purge`, the control plane does not answer, which alone knows the sandboxes.
    """
    items = [Item("sandbox", name) for name in _sandboxes(ctx, paths, purge=purge)]
    path = systemd.unit_path(ctx.settings.env)
    if path.exists():
        items.append(Item("systemd unit", str(path)))
    installed = Installed(ctx.settings)
    if installed:
        items.append(Item("ssh config", str(installed.config)))
    if purge:
        items += [
            Item("remote sandbox that is locked out", f"{name} at {server}")
            for name, server in locked_out(ctx.settings)
        ]
        items += [Item("process", name) for name, _ in survivors(paths)]
        items += [Item("image", str(path)) for path in sorted(paths.images.glob("img_*"))]
        items += [Item("snapshot", str(path)) for path in sorted(paths.snapshots.glob("sn_*"))]
        items += [
            Item(what, str(path))
            for what, path in (
                ("state", paths.state),
                ("runtime", paths.runtime),
                ("cache", ctx.settings.cache_dir),
            )
            if path.exists()
        ]
    return tuple(items)


def remove(ctx: Context, paths: Paths, items: tuple[Item, ...], *, purge: bool) -> None:
    """Remove what `find` found; what goes wrong with one does not keep the others, but the state stays while a sandbox does.

    Raises:
        LocalError: Something could not be removed; it says what.
    """
    wrong: list[str] = []
    end_all(ctx.settings)
    if not purge or client.serves(paths):
        wrong += _destroy_all(ctx, [item.path for item in items if item.what == "sandbox"])
    for step in (Installed(ctx.settings).uninstall, lambda: systemd.remove(ctx.settings.env)):
        try:
            step()
        except IronsError as error:
            wrong.append(error.message)
    if purge:
        # What the control plane could not destroy may well go once it is out of the way.
        wrong = _purge(ctx, paths)
    if wrong:
        raise LocalError("; ".join(wrong), hint=_what_next(paths, purge=purge))


def _what_next(paths: Paths, *, purge: bool) -> str:
    if purge and os.geteuid() != 0:
        try:
            outer_map()
        except IdMapError:
            # Files of ids that this user has no longer: nothing that it can do would remove them.
            return f"only root can remove what is left: sudo rm -rf {paths.state}"
    return "run it again; irons local logs may show more"


def _purge(ctx: Context, paths: Paths) -> list[str]:
    """End the daemon in any state, and remove all that is left; returns what could not be removed.

    Until the state is gone no other command starts a daemon on it, which would lose its notes of its processes.
    """
    try:
        barred = _end_and_bar(paths)
    except (daemonize.DaemonizeError, OSError) as error:
        return [str(error)]
    try:
        wrong = asyncio.run(_destroy_left(ctx, paths))
        # Without its state no one would know of a sandbox that still runs.
        if not wrong:
            asyncio.run(_remove_state(paths))
            for directory in (paths.runtime, ctx.settings.cache_dir):
                shutil.rmtree(directory, ignore_errors=True)
    except EngineError as error:
        return [error.message]
    except OSError as error:
        return [str(error)]
    finally:
        for lock in barred:
            os.close(lock)
    return wrong


def _end_and_bar(paths: Paths) -> list[int]:
    """End every process, and return the locks that keep others from coming.

    Raises:
        BecomingError: A process does not end, or another one starts again and again.
        OSError: The locks cannot be opened.
    """
    for last in (False, False, True):
        left = ", ".join(f"{name} (process {pid})" for name, pid in end(paths))
        if left:
            raise daemonize.DaemonizeError(f"not ended: {left}")
        try:
            return daemonize.bar(paths)
        except daemonize.AnotherError:
            # Another command was quicker.
            if last:
                raise
    raise AssertionError


def _sandboxes(ctx: Context, paths: Paths, *, purge: bool) -> list[str]:
    if not purge:
        if not paths.database.exists():
            return []
        try:
            return [sandbox.name for sandbox in ctx.api.list()]
        except LocalError as error:
            hint = "irons local uninstall --purge removes everything without it"
            raise LocalError(error.message, hint=hint) from None
    if client.serves(paths):
        with suppress(IronsError):
            return [sandbox.name for sandbox in ctx.api.list()]
    return [_name(home) for home in _homes(paths)]


def _homes(paths: Paths) -> list[Path]:
    """The directories of the sandboxes there are, whether or not a control plane knows of them."""
    try:
        return sorted(home for home in paths.sandboxes.iterdir() if home.name.startswith("sb_"))
    except OSError:
        return []


def _name(home: Path) -> str:
    try:
        return Machine.read(home).name
    except EngineError:
        return home.name


def _destroy_all(ctx: Context, names: list[str]) -> list[str]:
    from irons_plugins.lifecycle.handlers import destroy_one

    wrong: list[str] = []
    for name in names:
        try:
            with suppress(NotFound):
                destroy_one(ctx, name, force=True)
        except IronsError as error:
            wrong.append(f"sandbox {name}: {error.message}")
    return wrong


async def _destroy_left(ctx: Context, paths: Paths) -> list[str]:
    """Have every engine destroy what is there, with neither keeper nor control plane; returns what would not go."""
    from irons_local.control.sandbox.engine_registry import make_engines

    names = {home.name: _name(home) for home in _homes(paths)}
    names = {**{sandbox: sandbox for sandbox in _half_instances(paths)}, **names}
    if not names:
        return []
    wrong: list[str] = []
    kit = Kit(cells=_NoCells(), images=paths.images, sandboxes=paths.sandboxes)
    engines = make_engines(kit, ctx.host.engines())
    for sandbox, name in names.items():
        for engine in engines.values():
            try:
                await engine.destroy(sandbox)
            except (EngineError, OSError, Problem) as error:
                left = await _abandoned(engine, sandbox)
                if left:
                    ctx.progress(
                        f"{name}: Incus is gone, and may have its instance yet: incus --project irons delete --force {left}"
                    )
                    continue
                wrong.append(f"sandbox {name}: {error}")
                # The next engine may know nothing of its processes, and would remove its files from under them.
                break
    return wrong


def _half_instances(paths: Paths) -> list[str]:
    """Ids of the sandboxes that are half made or half removed, and have an instance of Incus that no file system shows."""
    try:
        homes = sorted(paths.sandboxes.iterdir())
    except OSError:
        return []
    return [sandbox_of(home) for home in homes if is_unfinished(home) and Machine.is_instance(home)]


async def _abandoned(engine: Engine, sandbox: str) -> str:
    """Remove a sandbox whose Incus is gone for good; gives the instance that may be left there, "" where it is not so."""
    from irons_local.engines.incus.offer import IncusEngine

    if isinstance(engine, IncusEngine):
        with suppress(EngineError, OSError, Problem):
            return await engine.abandon(sandbox)
    return ""


class _NoCells:
    """`Cells` where no keeper runs: a cell then is there for as long as a process is in it, and cannot be entered."""

    async def make(self, cell: str) -> None:
        raise CellError(f"{cell}: no keeper runs")

    async def make_with_veth(self, cell: str) -> Veth:
        raise CellError(f"{cell}: no keeper runs")

    async def namespaces(self, cell: str) -> Namespaces:
        raise CellError(f"{cell}: no keeper runs")

    async def connect(self, cell: str, address: str, port: int, *, within: float) -> socket.socket:
        raise CellError(f"{cell}: no keeper runs, to lead to {address} port {port} within {within} s")

    async def adopt(self, cell: str, pid: int, started: int) -> None:
        raise CellError(f"{cell}: no keeper runs, to adopt process {pid} of {started}")

    async def drop(self, cell: str) -> None:
        """It went with the keeper."""


async def _remove_state(paths: Paths) -> None:
    for directory in (paths.images, paths.layers, paths.sandboxes):
        for entry in directory.iterdir() if directory.is_dir() else ():
            if entry.is_dir() and not entry.is_symlink():
                await remove_tree(entry)
    # The lock goes last: without it another command would start a daemon here.
    for entry in paths.local.iterdir() if paths.local.is_dir() else ():
        if entry.is_dir() and not entry.is_symlink():
            await remove_tree(entry)
        elif entry != paths.state_lock:
            entry.unlink(missing_ok=True)
    try:
        await remove_tree(paths.state)
    except OSError as error:
        # A volume of a container is a mount point: it is empty now, and goes with the container.
        if error.errno != errno.EBUSY or any(paths.state.iterdir()):
            raise
