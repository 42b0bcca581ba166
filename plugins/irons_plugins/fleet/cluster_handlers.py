"""Handlers of `fleet join` and `fleet leave`."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from irons.errors import Conflict, LocalError, NotFound, UsageError
from irons.record import NamedTuple
from irons_plugins.fleet.joining import INSTALL, given_token, missing_extra
from irons_plugins.local.backend import paths_of

if TYPE_CHECKING:
    from irons.context import Context


class JoinedCluster(NamedTuple):
    """A cluster that this machine has joined.

    Attributes:
        url: The member that was named.
        fingerprint: SHA-256 of the cluster's certificate, in hexadecimal.
        until: When the certificate of this machine ends.
    """

    url: str
    fingerprint: str
    until: str


def join(ctx: Context, *, url: str) -> JoinedCluster:
    """Join a cluster as its client.

    Raises:
        UsageError: The URL or the token is not one.
        Conflict: A cluster is joined already, or there are sandboxes of the Incus of this machine.
        LocalError: It could not be joined; nothing is left.
    """
    directory = _directory(ctx)
    enrol = _enrol()
    from irons_local.config.incus import CLUSTER
    from irons_local.engines.incus.reach.token import TokenError, read_token
    from irons_local.errors import EngineError

    if (directory / CLUSTER).exists():
        raise Conflict("this machine has joined a cluster already", hint="irons fleet leave")
    _refuse_with_sandboxes(ctx)
    try:
        checked = enrol.checked_url(url)
        token = read_token(given_token(ctx, "irons fleet join URL <token.txt"), datetime.now(UTC))
        joined = asyncio.run(enrol.join(directory, checked, token))
    except TokenError as error:
        raise UsageError(str(error), hint="incus config trust add irons, on a member, prints one") from None
    except EngineError as error:
        kind = UsageError if error.code == "input" else LocalError
        raise kind(error.message, hint=error.hint) from None
    except OSError as error:
        raise LocalError(f"{directory} cannot be written: {error}") from None
    ctx.progress("irons create NAME --engine incus now makes its sandboxes in that cluster")
    return JoinedCluster(joined.urls[0], joined.fingerprint, joined.until)


class TakenProject(NamedTuple):
    """The server that has the project of irons now.

    Attributes:
        server: Its id.
        epoch: How often the project has changed hands.
    """

    server: str
    epoch: int


def takeover(ctx: Context, *, yes: bool) -> TakenProject | None:
    """Make the project of irons this server's.

    Raises:
        NotFound: There is none.
        UsageError: No one is there to ask.
        LocalError: Incus does not answer.
    """
    directory = _directory(ctx)
    from irons.settings.settings import config_path
    from irons_local.config.incus import incus_socket
    from irons_local.engines.incus.owner import take_over
    from irons_local.engines.incus.reach.ways import SocketWay, joined_way
    from irons_local.errors import EngineError

    question = "Take over the sandboxes at Incus? The server that has them must be ended for good."
    if not yes and not ctx.confirm(question, otherwise="irons fleet takeover --yes"):
        return None
    try:
        way = joined_way(directory) or SocketWay(incus_socket(config_path(ctx.settings.env)))
        return TakenProject(*asyncio.run(take_over(way, directory.parent)))
    except EngineError as error:
        kind = NotFound if error.code == "absent" else LocalError
        raise kind(error.message, hint=error.hint) from None


def leave(ctx: Context) -> None:
    """Stop being a client of the cluster that was joined.

    Raises:
        Conflict: There are sandboxes in it, or no cluster was joined.
        LocalError: What is here of it cannot be removed.
    """
    directory = _directory(ctx)
    enrol = _enrol()
    from irons_local.engines.incus.reach.joined import Joined
    from irons_local.errors import EngineError

    _refuse_with_sandboxes(ctx)
    try:
        joined = Joined.read(directory)
        if joined is None:
            raise Conflict("this machine has joined no cluster")
        left = asyncio.run(enrol.leave(directory, joined))
    except EngineError as error:
        raise LocalError(error.message, hint=f"rm -r {directory}") from None
    except OSError as error:
        raise LocalError(f"{directory} cannot be removed: {error}") from None
    if left:
        ctx.progress(
            f"{left}; the cluster may trust this machine yet: incus config trust remove {joined.client[:12]}"
        )


def _enrol() -> ModuleType:
    try:
        from irons_local.engines.incus import enrol
    except ImportError as error:
        raise LocalError(missing_extra(error), hint=INSTALL) from None
    return enrol


def _directory(ctx: Context) -> Path:
    from irons_local.config.incus import joined_directory
    from irons_local.paths import PathsError

    if os.geteuid() != 0:
        raise LocalError("the engine incus needs a daemon of root: run this as root")
    try:
        return joined_directory(paths_of(ctx.settings).create().local)
    except PathsError as error:
        raise LocalError(str(error)) from None


def _refuse_with_sandboxes(ctx: Context) -> None:
    from irons_local.bundle.machine import Machine

    try:
        homes = sorted(paths_of(ctx.settings).sandboxes.iterdir())
    except FileNotFoundError:
        return
    if any(Machine.is_instance(home) for home in homes):
        raise Conflict(
            "there are sandboxes of the engine incus, which the other Incus does not have",
            hint="destroy them first: irons list -o json names the engine of each",
        )
