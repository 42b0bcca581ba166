"""Taking irons off a machine: what there is, and its removal, files of subordinate ids included."""

from __future__ import annotations

import asyncio
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from irons.errors import IronsError, LocalError, NotFound
from irons_plugins.local.unit import unit_path
from irons_plugins.ssh.config_blocks import Installed

if TYPE_CHECKING:
    from irons.context import Context
    from irons_plugins.local.places import Places


class Item(NamedTuple):
    """Something that is removed."""

    what: str
    path: str


def find(ctx: Context, places: Places, *, purge: bool) -> tuple[Item, ...]:
    """Return what irons has on this machine: sandboxes, unit, SSH include; with `purge` images and everything else too."""
    items = [Item("sandbox", name) for name in _sandboxes(ctx, places)]
    unit = unit_path(ctx.settings.env)
    if unit.exists():
        items.append(Item("systemd unit", str(unit)))
    installed = Installed(ctx.settings)
    if installed:
        items.append(Item("ssh config", str(installed.config)))
    if purge:
        items += [Item("image", str(path)) for path in sorted(places.images.glob("img_*"))]
        items += [
            Item(what, str(path))
            for what, path in (
                ("state", places.state),
                ("runtime", places.runtime),
                ("cache", ctx.settings.cache_dir),
            )
            if path.exists()
        ]
    return tuple(items)


def remove(ctx: Context, places: Places, items: tuple[Item, ...], *, purge: bool) -> None:
    """Remove what `find` found; what goes wrong with one does not keep the others, but the state stays while a sandbox does.

    Raises:
        LocalError: Something could not be removed; it says what.
    """
    wrong: list[str] = []
    for item in items:
        if item.what == "sandbox":
            try:
                _destroy(ctx, item.path)
            except IronsError as error:
                wrong.append(f"sandbox {item.path}: {error.message}")
    # Without its state nobody would know of a sandbox that still runs.
    purge = purge and not wrong
    try:
        Installed(ctx.settings).uninstall()
    except IronsError as error:
        wrong.append(error.message)
    unit_path(ctx.settings.env).unlink(missing_ok=True)
    if purge:
        from irons_plugins.local import daemon

        with suppress(LocalError):
            daemon.down(places)
        try:
            asyncio.run(_remove_state(places))
            shutil.rmtree(places.runtime, ignore_errors=True)
            shutil.rmtree(ctx.settings.cache_dir, ignore_errors=True)
        except (OSError, IronsError) as error:
            wrong.append(str(error))
    if wrong:
        raise LocalError("; ".join(wrong), hint="run it again; irons local logs may tell more")


def _sandboxes(ctx: Context, places: Places) -> list[str]:
    if not places.database.exists():
        return []
    return [sandbox.name for sandbox in ctx.api.list()]


def _destroy(ctx: Context, name: str) -> None:
    from irons_plugins.lifecycle.handlers import destroy_one

    with suppress(NotFound):
        destroy_one(ctx, name, force=True)


async def _remove_state(places: Places) -> None:
    from irons_plugins.local.engines import EngineError
    from irons_plugins.local.engines.removal import remove_tree

    try:
        for directory in (places.images, places.sandboxes):
            for entry in directory.iterdir() if directory.exists() else ():
                if entry.is_dir() and not entry.is_symlink():
                    await remove_tree(entry)
        await remove_tree(places.state)
    except EngineError as error:
        raise LocalError(error.message, hint=error.hint) from None
