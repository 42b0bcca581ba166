"""What the commands of this plugin share: asking where a sandbox's SSH is, and failing with OpenSSH's manners."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from irons.errors import Conflict, IronsError, UsageError
from irons_plugins.ssh import openssh
from irons_plugins.ssh.identities import Identities
from irons_plugins.ssh.target import Target, target_of

if TYPE_CHECKING:
    from irons.context import Context

FAILED = 125
"""The exit code of `ssh` and `exec` where irons itself failed: every other one may be the remote command's."""


class Entrance(NamedTuple):
    """Where to, and the options that every OpenSSH program takes to get there."""

    target: Target
    options: list[str]


def entrance(ctx: Context, name: str, *, strict: bool = False, direct: bool = True) -> Entrance:
    """Ask the server for a sandbox's SSH address and return how to get there.

    Args:
        ctx: The call's context.
        name: The sandbox.
        strict: Check the host key even where the server told none.
        direct: Where the backend is this machine's own, go through the cell; else by the TCP port.

    Raises:
        ApiError: The server said no, or something that makes no sense.
    """
    try:
        target = target_of(ctx.api.ssh(name))
    except Conflict as error:
        if not error.hint:
            error.hint = f"irons start {name} starts it"
        raise
    if name not in ctx.names.read():
        ctx.names.put(name, "")
    shared = openssh.options(
        target,
        ctx.settings.state_dir,
        identity=Identities.of(ctx.settings).of_sandbox(name),
        strict=strict,
        through_cell=direct and ctx.api.backend.local,
    )
    return Entrance(target, shared)


@contextmanager
def failing_as_ssh() -> Iterator[None]:
    """Let what fails in irons itself exit with 125, which is never taken for the remote command's code."""
    try:
        yield
    except UsageError:
        raise
    except IronsError as error:
        error.exit_code = FAILED
        raise
