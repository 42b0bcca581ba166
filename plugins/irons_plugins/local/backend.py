"""From the URL `local` to a running daemon and its socket."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from irons.errors import LocalError, NotFound
from irons.hookspecs import Backend

if TYPE_CHECKING:
    from irons.context import Context
    from irons.settings.settings import Settings
    from irons_local.paths import Paths

ELSEWHERE = "irons doctor says what is missing; for a server elsewhere set IRONS_API_URL and IRONS_API_KEY"


def local_backend(settings: Settings) -> Backend:
    """Bring the daemon up where it is not, and return how to reach it.

    Where `IRONS_NO_START` is set it is not brought up: completion and toolbars look in passing, and must not start anything.

    Raises:
        LocalError: It can't run here, or is down and must not be started; the hint says what to do.
    """
    from irons_local.daemon import client

    paths = paths_of(settings)
    waker = None
    if settings.env.get("IRONS_NO_START"):
        if client.status(paths) is None:
            raise LocalError(
                "the local backend is down",
                hint="irons local up starts it, and so does any command that needs it",
            )
    else:
        from irons_local.daemon.transport import RestartingTransport

        waker = RestartingTransport(paths, settings.env)
    return Backend(
        "http://irons",
        local=True,
        handover=handover_command(paths),
        socket=str(paths.api_socket),
        waker=waker,
    )


def handover_command(paths: Paths) -> tuple[str, ...]:
    """The command that hands OpenSSH a connection: without `site`, which would take longer than all the rest of it."""
    from irons_local import daemon

    program = Path(*daemon.__path__) / "handover.py"
    return (sys.executable, "-I", "-S", str(program), str(paths.keeper_socket))


@contextmanager
def on_this_machine(ctx: Context) -> Iterator[Context]:
    """The same call, but its client is this machine's backend, whichever other one the settings choose.

    What is below `irons local` must never list, change or remove anything elsewhere.
    """
    from irons.context import Context
    from irons.settings.settings import Value

    chosen = {"api_url": Value("local", "irons local"), "api_key": Value("", "irons local")}
    settings = ctx.settings.changed(values={**ctx.settings.values, **chosen})
    here = Context(settings, ctx.host, ctx.streams, face=ctx.face, session=ctx.session)
    try:
        yield here
    except NotFound as error:
        if ctx.settings.api_url != "local":
            error.hint = f"irons local works on this machine alone, and irons list shows those of {ctx.settings.api_url}"
        raise
    finally:
        here.close()


def paths_of(settings: Settings) -> Paths:
    """Return where the local backend keeps its things.

    Raises:
        LocalError: This is not Linux, or there is no directory for state.
    """
    if sys.platform != "linux":
        raise LocalError(
            "the local backend runs on Linux only",
            hint="for a server elsewhere set IRONS_API_URL and IRONS_API_KEY",
        )
    from irons_local.ipc.locate import settle
    from irons_local.paths import Paths, PathsError

    try:
        return settle(Paths.of(settings.env))
    except PathsError as error:
        raise LocalError(str(error), hint=ELSEWHERE) from None
