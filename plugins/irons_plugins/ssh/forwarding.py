"""Handler of `forward`: ports of this machine that lead into a sandbox, announced once they do."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from irons.command import FAILED_ITSELF
from irons.errors import IronsError, UsageError
from irons.terminal.streams import Streams
from irons_plugins.ssh.connect.connect_info import Entrance, entrance
from irons_plugins.ssh.ending.log import SshLog
from irons_plugins.ssh.ending.telling import ended_by
from irons_plugins.ssh.openssh.command_line import ssh_argv
from irons_plugins.ssh.openssh.endings import aftermath
from irons_plugins.ssh.openssh.subprocess import Sinks, run_piped

if TYPE_CHECKING:
    from irons.context import Context

_PORTS = re.compile(r"([0-9]{1,5})(?::([0-9]{1,5}))?")
_READY = "debug1: Entering interactive session."
"""What OpenSSH logs once all ports listen; it names each of them before it binds it."""
_TAKEN = re.compile(r"bind \[127\.0\.0\.1\]:([0-9]+): (.+)")
_NOISE = re.compile(r"debug[0-9]: |OpenSSH_|Authenticated to |Transferred: |Bytes per second: |Warning: ")


def forward(ctx: Context, *, name: str, ports: tuple[str, ...], strict_hostkeys: bool) -> None:
    """Forward ports of this machine's loopback address to ports in the sandbox, until interrupted.

    Raises:
        UsageError: A word is not a port.
        IronsError: A port is taken, OpenSSH could not get there, or the connection was lost: exit code 125. TERM or HUP came.
        KeyboardInterrupt: Ctrl-C.
    """
    pairs = dict(_ports(word) for word in ports)
    way = entrance(ctx, name, strict=strict_hostkeys)

    def listening() -> None:
        for here, there in pairs.items():
            ctx.progress(f"127.0.0.1:{here} leads to port {there} of {name}")
        ctx.progress("Ctrl-C ends it")

    try:
        raise run_forward(ctx, way, pairs, listening)
    except KeyboardInterrupt as error:
        raise ended_by(error) from None


def run_forward(
    ctx: Context,
    way: Entrance,
    pairs: Mapping[int, int],
    listening: Callable[[], None],
    check: Callable[[], None] | None = None,
) -> IronsError:
    """Forward ports until OpenSSH ends, and return why it did.

    Args:
        ctx: The call's context.
        way: How to get there.
        pairs: Ports of this machine's loopback address, each with its port in the sandbox.
        listening: Called once all of them listen, in a thread.
        check: Called again and again; the `KeyboardInterrupt` that it raises ends it.
    """
    heard_it = threading.Event()

    def heard(line: str) -> None:
        if line == _READY and not heard_it.is_set():
            heard_it.set()
            listening()

    with SshLog(heard) as log, Path("/dev/null").open("r+") as nothing:
        options = (("LogLevel", "DEBUG1"), ("ExitOnForwardFailure", "yes"), *way.options)
        flags = ["-N", "-T", "-E", log.path]
        for here, there in pairs.items():
            flags += ["-L", f"127.0.0.1:{here}:localhost:{there}"]
        streams = Streams(nothing, nothing, nothing, ctx.settings.env)

        def deadline() -> float:
            if check is not None:
                check()
            return math.inf

        run_piped(
            ssh_argv(way.target, options, flags),
            streams,
            sinks=Sinks(stderr=lambda _: None),
            bound=check is None,
            deadline=None if check is None else deadline,
        )
    return _failure(ctx, way, log.lines(), listened=heard_it.is_set())


def _failure(ctx: Context, way: Entrance, log: list[str], *, listened: bool) -> IronsError:
    """Return why OpenSSH ended."""
    taken = next((found for line in log if (found := _TAKEN.fullmatch(line))), None)
    said = [line for line in log if not _NOISE.match(line)]
    hint = ""
    if taken is not None:
        why = "it is in use" if taken[2] == "Address already in use" else taken[2]
        message = f"127.0.0.1:{taken[1]} can't be listened on: {why}"
    elif listened or not said:
        gone = aftermath(ctx, way).gone
        message = f"the connection to {way.name} was lost" + (f": {gone}" if gone else "")
    else:
        message = f"SSH to {way.name} failed: {said[-1].rstrip('.')}"
        hint = f"irons ssh {way.name} may show why"
    error = IronsError(message, hint=hint)
    error.exit_code = FAILED_ITSELF
    return error


def _ports(word: str) -> tuple[int, int]:
    found = _PORTS.fullmatch(word)
    here = int(found[1]) if found else 0
    there = int(found[2] or found[1]) if found else 0
    if not (1 <= here <= 65535 and 1 <= there <= 65535):
        raise UsageError(f"{word!r} is not a port, nor LOCAL:REMOTE", hint="such as 8080, or 8080:80")
    return here, there
