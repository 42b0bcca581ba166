"""Handler of `ssh-config`, and what create and destroy do while it is installed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from irons.errors import Conflict, IronsError, NotFound, Unsupported, UsageError
from irons.record import NamedTuple
from irons_plugins.ssh.config.blocks import Installed, block, host_of
from irons_plugins.ssh.connect.connect_info import Entrance, entrance
from irons_plugins.ssh.connect.identities import Identities
from irons_plugins.ssh.connect.kept import end_kept
from irons_plugins.ssh.connect.known_hosts import known_hosts_path
from irons_plugins.ssh.keys.opening import is_shut_out
from irons_plugins.ssh.keys.own_keys import key_at_hand

if TYPE_CHECKING:
    from irons.context import Context


class ShutOutError(IronsError):
    """No key of this person opens the sandbox."""


class SshHost(NamedTuple):
    """What OpenSSH calls a sandbox."""

    host: str
    sandbox: str


def ssh_config(
    ctx: Context, *, name: str | None, install: bool, uninstall: bool, strict_hostkeys: bool
) -> str | Sequence[SshHost] | None:
    """Return the Host blocks, or install or remove them."""
    installed = Installed(ctx.settings)
    if uninstall:
        if install or name is not None:
            raise UsageError("--uninstall stands alone")
        there = installed.uninstall()
        ctx.progress(
            f"{installed.config} {'no longer includes' if there else 'does not include'} the sandboxes"
        )
        return None
    if name is not None:
        host_of(name)
    clear = installed.forwards_back(ctx.settings.env)
    blocks = {
        one: block(one, way, clear=clear)
        for one in ([name] if name is not None else _names(ctx))
        if (way := _entrance(ctx, one, strict=strict_hostkeys, needed=name is not None)) is not None
    }
    if clear:
        ctx.progress(
            f"{installed.config} forwards ports of the other side to this one; for sandboxes all port forwarding "
            "is undone (ClearAllForwardings)"
        )
    if not install:
        return "\n".join(blocks.values())
    installed.install()
    for one, text in blocks.items():
        installed.put(one, text)
    ctx.progress(f"{installed.config} includes the sandboxes")
    return tuple(SshHost(host_of(one), one) for one in blocks)


def leads(row: SshHost) -> str:
    """Return what is installed for a sandbox, in one line."""
    return f"ssh {row.host} leads to {row.sandbox}"


def _names(ctx: Context) -> list[str]:
    try:
        return [sandbox.name for sandbox in ctx.api.list()]
    except Unsupported:
        return sorted(ctx.names.read())


def _entrance(ctx: Context, name: str, *, strict: bool, needed: bool) -> Entrance | None:
    try:
        host_of(name)
        way = entrance(ctx, name, strict=strict, lasting=True)
        if is_shut_out(ctx, way):
            raise ShutOutError(
                f"none of your keys opens {name}",
                hint=f"irons access {name} add {shlex.quote(str(key_at_hand(ctx.settings)))}",
            )
        return way
    except (ShutOutError, Conflict, NotFound, UsageError) as error:
        if needed:
            raise
        hint = f"; {error.hint}" if isinstance(error, ShutOutError) else ""
        ctx.progress(f"irons: {name} is left out: {error.message}{hint}")
        return None


def arrived(ctx: Context, name: str) -> None:
    """Add a sandbox to the installed configuration, where there is one; what fails costs a line and no more."""
    installed = Installed(ctx.settings)
    try:
        if installed:
            way = entrance(ctx, name, lasting=True)
            installed.put(name, block(name, way, clear=installed.forwards_back(ctx.settings.env)))
    except IronsError as error:
        ctx.progress(f"irons: {name} is not in the installed ssh configuration: {error.message}")


def left(ctx: Context, name: str) -> None:
    """Forget all that this machine keeps of a sandbox that is no more.

    What is kept goes by name. Where another command has made a sandbox of that name since, the key that opens it stays.
    """
    try:
        end_kept(ctx.settings, name)
        Installed(ctx.settings).forget(name)
        known_hosts_path(ctx.settings, name).unlink(missing_ok=True)
        Identities.of(ctx.settings).forget(name, unless=lambda: _is_there(ctx, name))
    except (OSError, IronsError) as error:
        ctx.progress(f"irons: what is kept of {name} could not be removed: {error}")


def _is_there(ctx: Context, name: str) -> bool:
    """Tell whether irons' own server has a sandbox of a name; others may go on for a while to tell of one that they destroy."""
    try:
        return "terms" in ctx.api.extensions and bool(ctx.api.status(name))
    except IronsError:
        return False
