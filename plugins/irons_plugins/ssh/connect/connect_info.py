"""What the commands of this plugin share: asking where a sandbox's SSH is, and failing with OpenSSH's manners."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from irons.command import FAILED_ITSELF
from irons.errors import Conflict, IronsError, as_irons_error
from irons.record import NamedTuple
from irons_plugins.ssh.connect.identities import Identities
from irons_plugins.ssh.connect.known_hosts import told_host_key
from irons_plugins.ssh.connect.target import Target, target_of
from irons_plugins.ssh.openssh.command_line import CHECKED, PINNED, UNCHECKED, Options, proxy_command, quoted
from irons_plugins.ssh.openssh.user_ssh_config import carried_over

if TYPE_CHECKING:
    from irons.context import Context

_ON_ITS_WAY = ("creating", "starting")
"""States that lead to `ready` without a command."""


class Entrance(NamedTuple):
    """Which sandbox, where it is, and the options that every OpenSSH program takes to get there."""

    name: str
    target: Target
    options: Options


def entrance(
    ctx: Context, name: str, *, strict: bool = False, direct: bool = True, lasting: bool = False
) -> Entrance:
    """Ask the server for a sandbox's SSH address and return how to get there.

    Args:
        ctx: The call's context.
        name: The sandbox.
        strict: Check the host key even where the server sent none.
        direct: Where the backend is this machine's own, take a descriptor from the keeper; else the TCP port.
        lasting: The options are for a file; they must work when irons has been upgraded and the runtime directory is another one.

    Raises:
        ApiError: The server refused, or its answer is invalid.
        ConfigError: The known_hosts file can't be written.
    """
    target = asked_target(ctx, name)
    carried = carried_over(target, ctx.settings.env)
    options = {**PINNED, **carried.options}
    if target.host_keys:
        options |= told_host_key(ctx.settings, name, target)
    else:
        options |= CHECKED if strict else UNCHECKED
    if direct and target.cell and ctx.api.backend.local:
        handover = () if lasting else ctx.api.backend.handover
        options |= {"ProxyCommand": proxy_command(target.cell, handover), "ProxyUseFdpass": "yes"}
        # It never leaves this machine, and a key exchange against later quantum computers takes most of a login's time.
        options["KexAlgorithms"] = "^curve25519-sha256"
    remembered = Identities.of(ctx.settings).of_sandbox(name)
    if remembered is not None:
        # An agent with many keys would use up the server's patience before it came to this one.
        options["IdentitiesOnly"] = "yes"
    identities = carried.identities if remembered is None else (quoted(remembered),)
    return Entrance(name, target, (*options.items(), *(("IdentityFile", path) for path in identities)))


def asked_target(ctx: Context, name: str) -> Target:
    """Ask the server where a sandbox's SSH answers. Raises `ApiError`."""
    try:
        target = target_of(ctx.api.ssh(name))
    except Conflict as error:
        if not error.hint:
            error.hint = _what_to_do(ctx, name)
        raise
    if name not in ctx.names.read():
        ctx.names.put(name, "")
    return target


def _what_to_do(ctx: Context, name: str) -> str:
    """Return the hint for a sandbox whose SSH does not answer: one that is on its way needs no start."""
    with suppress(IronsError):
        if ctx.api.status(name).status in _ON_ITS_WAY:
            return f"irons wait {name} waits until it is ready"
    return f"irons start {name} starts it"


@contextmanager
def failing_as_ssh() -> Iterator[None]:
    """Give every failure of irons itself the exit code 125, for where an error becomes a part of an answer."""
    try:
        yield
    except Exception as error:
        failure = as_irons_error(error)
        # An end by a signal has a code of its own.
        failure.exit_code = vars(failure).get("exit_code", FAILED_ITSELF)
        if failure is error:
            raise
        raise failure from error
