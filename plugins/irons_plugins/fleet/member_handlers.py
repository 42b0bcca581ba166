"""Handlers of `fleet add|remove|status` and of `member …`."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from irons.errors import LocalError, UsageError
from irons_plugins.fleet.joining import INSTALL, given_token, missing_extra
from irons_plugins.local.backend import on_this_machine, paths_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from irons.client.models.server import FleetMember, NewMember
    from irons.context import Context


def add(ctx: Context, *, name: str, address: str | None) -> NewMember:
    """Make a token; the answer is the only place where it is seen."""
    with on_this_machine(ctx) as here:
        made = here.api.add_member(name, address)
    ctx.progress(
        f"Run `irons member join` on {name} within 10 minutes, and give it this token. It is shown once."
    )
    return made


def remove(ctx: Context, *, name: str) -> None:
    """Remove a member."""
    with on_this_machine(ctx) as here:
        here.api.remove_member(name)
    ctx.progress(f"the member {name} is removed")


def status(ctx: Context) -> Sequence[FleetMember]:
    """Show the members."""
    with on_this_machine(ctx) as here:
        return here.api.members()


def join(ctx: Context, *, token_file: str | None) -> None:
    """Join by a token."""
    _as_root()
    try:
        from irons_local.member.join import JoinError
        from irons_local.member.join import join as joining
    except ImportError as error:
        raise LocalError(missing_extra(error), hint=INSTALL) from None
    from irons_local.fleet.token import JoinTokenError, read_token
    from irons_local.paths import PathsError

    try:
        given = (
            Path(token_file).read_text()
            if token_file
            else given_token(ctx, "irons member join --token-file FILE")
        )
        token = read_token(given)
    except (OSError, ValueError) as error:
        raise UsageError(f"the token cannot be read: {error}") from None
    except JoinTokenError as error:
        raise UsageError(str(error)) from None
    paths = paths_of(ctx.settings)
    if paths.sandboxes.is_dir() and any(paths.sandboxes.iterdir()):
        raise LocalError("this machine has sandboxes of its own: destroy them, then join")
    try:
        asyncio.run(joining(token, paths.create().member))
    except (JoinError, OSError, PathsError) as error:
        raise LocalError(str(error)) from None
    ctx.progress(f"this machine is the member {token.name} of {token.address}; run `irons member run`")


def run(ctx: Context) -> NoReturn:
    """Become the keeper of this member."""
    _as_root()
    from irons_local.daemon.spawn import environment
    from irons_local.interpreter import options
    from irons_local.keeper.keeper import MEMBER
    from irons_local.keeper.supervise.spawn import STATE
    from irons_local.member.identity import IdentityError, read_identity
    from irons_local.paths import PathsError

    paths = paths_of(ctx.settings)
    try:
        read_identity(paths.create().member)
    except (IdentityError, PathsError) as error:
        raise LocalError(str(error)) from None
    words = ["-m", "irons_local.keeper.keeper", "--foreground", MEMBER, STATE, str(paths.state)]
    env = environment(paths, ctx.settings.env)
    os.execve(sys.executable, [sys.executable, *options(), *words], env)  # noqa: S606 (no shell is what is wanted)


def install(ctx: Context, *, print_only: bool) -> str | None:
    """Write the systemd unit of this member, or return its text."""
    from irons_plugins.fleet import member_unit
    from irons_plugins.local import systemd

    if print_only:
        return member_unit.render(ctx.settings.env, sys.executable)
    _as_root()
    ctx.progress(f"wrote {member_unit.write(ctx.settings.env, sys.executable)}")
    if systemd.runs_machine():
        ctx.progress("start it with: systemctl daemon-reload && systemctl enable --now irons-member")
    else:
        ctx.progress("systemd does not run this machine: nothing starts the unit")
    return None


def _as_root() -> None:
    if os.geteuid() != 0:
        raise LocalError("only root's machine can be a member: run this as root")
