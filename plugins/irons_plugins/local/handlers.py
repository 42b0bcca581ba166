"""Handlers of `doctor` and of the commands that start, stop, show and remove the local backend."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from irons.command import Result
from irons.errors import IronsError, LocalError, NotFound, UsageError
from irons.record import NamedTuple
from irons.text import clean, size_text
from irons.wire_values import SANDBOX_ID
from irons_plugins.local.backend import on_this_machine, paths_of
from irons_plugins.local.key_handlers import say_keys

if TYPE_CHECKING:
    from irons.context import Context
    from irons_local.doctor.checks import DoctorCheck
    from irons_local.log.files import Follower
    from irons_local.paths import Paths
    from irons_plugins.local.listen_options import Listening


_SHORT = 64 << 10
"""Bytes: with less than this free nothing that is recorded can be relied on."""

_MOST_LAYERS = 20
"""Layers that `status` prints; the others are counted."""

_ID = re.compile(SANDBOX_ID)

PROCESSES = ("keeper", "server", "gateway")


class ProcessRow(NamedTuple):
    """One process of the backend. `memory` is its own part of memory (PSS), in bytes; `worker` numbers the gateway's."""

    process: str
    pid: int | None
    version: str
    state: str
    memory: int | None = None
    sandboxes: int | None = None
    worker: int | None = None
    failures: int | None = None
    listens: tuple[str, ...] = ()


class LogLine(NamedTuple):
    """A line that a process of the backend wrote."""

    process: str
    line: str


def doctor(ctx: Context) -> Result:
    """Return the checks, with exit code 1 where one that matters fails."""
    from irons_local.doctor.checks import examine

    checks = [*examine(paths_of(ctx.settings)), *_of_plugins(ctx)]
    return Result(checks, exit=0 if all(check.ok for check in checks) else 1)


def _of_plugins(ctx: Context) -> Iterator[DoctorCheck]:
    """Yield the checks of plugins, each named after its plugin."""
    from irons_local.doctor.checks import DoctorCheck

    for info, answer in ctx.host.answers("irons_checks", ctx.settings):
        try:
            for name, ok, what, fix in answer:
                yield DoctorCheck(f"{info.name}: {name}", bool(ok), str(what), str(fix))
        except Exception as error:  # noqa: BLE001 - a stranger's code
            ctx.host.failed(info, "irons_checks", error)


def up(
    ctx: Context,
    *,
    foreground: bool,
    listen: str | None,
    tls_cert: str | None,
    tls_key: str | None,
    ssh_listen: str | None,
) -> object:
    """Bring the daemon up; with `foreground` stay until it ends, and show its logs."""
    from irons_local.daemon import client
    from irons_local.log.files import Follower
    from irons_plugins.local.listen_options import Listening

    paths = paths_of(ctx.settings)
    asked = Listening.checked(listen, tls_cert, tls_key, ssh_listen)
    follower = Follower(paths.logs) if foreground else None
    if asked is None:
        client.ensure(paths, ctx.settings.env)
    else:
        _serve(ctx, paths, asked)
    _warn(ctx, paths)
    if follower is not None:
        client.stay(paths, partial(show, ctx, follower))
        return None
    return status(ctx)


def _warn(ctx: Context, paths: Paths) -> None:
    """Before there is a first image, say what keeps this machine from running sandboxes; the API is served all the same."""
    if any(paths.images.glob("img_*")):
        return
    from irons_local.doctor import readiness

    check = readiness.obstacle(paths)
    if check is not None:
        error = readiness.refused(check)
        ctx.progress(f"irons: {error.message}")
        ctx.progress(f"  {error.hint}")


def _serve(ctx: Context, paths: Paths, asked: Listening) -> None:
    """Have the API served where it was asked for; where that fails all is as it was."""
    from irons_local.daemon import client
    from irons_plugins.local.listen_options import kept

    paths.create()
    try:
        with kept(paths, asked) as new:
            if new and client.status(paths) is not None:
                client.restart(paths, "server")
            client.ensure(paths, ctx.settings.env)
    except LocalError:
        # One that could not serve there goes on as before.
        with suppress(LocalError):
            client.restart(paths, "server")
        raise


def down(ctx: Context) -> None:
    """End the daemon's processes."""
    from irons_local.daemon import client

    if client.down(paths_of(ctx.settings)):
        ctx.progress("the local backend is down; sandboxes run on, with no way out until it is up again")
        ctx.progress(
            "The next command brings it up. One that is open elsewhere and waits or follows does so within seconds: "
            "irons ask, irons audit --follow, irons audit watch, irons wait."
        )
    else:
        ctx.progress("the local backend was not running")


def status(ctx: Context) -> tuple[ProcessRow, ...]:
    """Return the backend's processes, and print what layers take of the disk and what API keys may do."""
    from irons_local.daemon import client

    paths = paths_of(ctx.settings)
    _show_layers(ctx, paths)
    found = client.status(paths)
    say_keys(ctx, paths, found)
    if found is None:
        return tuple(ProcessRow(name, None, "", "down") for name in PROCESSES)
    version = found.version
    rows = [
        ProcessRow("keeper", found.pid, version, "up", _memory(found.pid), found.cells),
        ProcessRow(
            "server",
            found.server,
            version,
            _state(found.server if found.ready else None),
            _memory(found.server),
            listens=_listens(paths),
        ),
    ]
    for each in found.workers:
        memory = _memory(each.pid) if each.memory is None else each.memory
        rows.append(
            ProcessRow(
                "gateway", each.pid, version, _state(each.pid), memory, each.cells, each.worker, each.failures
            )
        )
    if found.nursery is not None:
        pid, failures = found.nursery.pid, found.nursery.failures
        rows.append(ProcessRow("nursery", pid, version, _state(pid), _memory(pid), failures=failures))
    return tuple(rows)


def _show_layers(ctx: Context, paths: Paths) -> None:
    """Print the layers that images, snapshots and sandboxes share, the largest first, with who uses each."""
    from irons_local.images.usage import by_layer

    found = by_layer(paths.images, paths.sandboxes)
    if not found:
        return
    total = sum(each.used or 0 for each in found)
    ctx.progress(f"{len(found)} layers use {size_text(total)} of disk")
    for each in found[:_MOST_LAYERS]:
        used = "not counted yet" if each.used is None else size_text(each.used)
        ctx.progress(f"  {each.id}  {used}  {clean(', '.join(each.users)) or 'in use by nothing'}")
    if len(found) > _MOST_LAYERS:
        ctx.progress(f"  and {len(found) - _MOST_LAYERS} smaller ones")


def _listens(paths: Paths) -> tuple[str, ...]:
    """Where the API is served, and where SSH ports of sandboxes are open, as URLs."""
    from irons_local.control.sandbox.ssh_ports import PORTS
    from irons_plugins.local.listen_options import read

    asked = read(paths)
    served = [f"unix://{paths.api_socket}"]
    if asked.host is not None:
        scheme = "https" if asked.tls_cert else "http"
        served.append(f"{scheme}://{_in_url(asked.host)}:{asked.port}")
    return (*served, f"ssh://{_in_url(asked.ssh_host or '127.0.0.1')}:{PORTS.start}-{PORTS.stop - 1}")


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def listens_text(value: object) -> str:
    """Return where a process listens, for a table."""
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else ""


def _state(pid: int | None) -> str:
    return "up" if pid else "starting"


def bytes_text(value: object) -> str:
    """Return bytes as people read them, for a table."""
    return size_text(value) if isinstance(value, int) else ""


def _memory(pid: int | None, proc: Path = Path("/proc")) -> int | None:
    """Bytes of memory of a process: its share of what it uses, or where only root may know that, what is its own."""
    if pid is None:
        return None
    for name, field in (("smaps_rollup", "Pss:"), ("status", "RssAnon:")):
        with suppress(OSError):
            for line in (proc / str(pid) / name).read_text().splitlines():
                if line.startswith(field):
                    return int(line.split()[1]) * 1024
    return None


def logs(
    ctx: Context,
    *,
    process: str | None,
    lines: int,
    sandbox: str | None,
    console: bool,
    request: str | None,
) -> Iterator[LogLine]:
    """Yield the last lines of each log, of those about a sandbox with what its boot printed, or of those about a request.

    Raises:
        UsageError: a number below 1, or two of a process, a sandbox and a request that do not go together.
    """
    from irons_local.log import files

    if lines < 1:
        raise UsageError(f"--lines takes a number above 0, not {lines}")
    if sandbox is not None and process is not None:
        raise UsageError(f"{process} is a process of the backend; --sandbox goes without one")
    if console and sandbox is None:
        raise UsageError("--console goes with --sandbox NAME")
    if sandbox is not None and request is not None:
        raise UsageError("--sandbox and --request do not go together")
    directory = paths_of(ctx.settings).logs
    processes = (process,) if process else PROCESSES
    if sandbox is not None:
        identity, printed = _known(ctx, sandbox)
        found: Iterator[files.Written] | list[files.Written] = files.of_sandbox(
            directory, processes, identity, lines
        )
        yield from (LogLine(sandbox, clean(line)) for line in printed.splitlines()[-lines:])
        if console:
            return
    elif request is not None:
        found = files.of_request(directory, processes, request, lines)
    else:
        found = files.ends(directory, processes, lines)
    for written in found:
        yield LogLine(written.process, clean(written.text))
    full = _full(directory)
    if full and sandbox is None:
        yield LogLine("disk", full)


def _known(ctx: Context, sandbox: str) -> tuple[str, str]:
    """The id of a sandbox and what its boot printed; an id is enough for the logs of one that is destroyed."""
    try:
        return ctx.api.status(sandbox).id, ctx.api.boot_output(sandbox)
    except NotFound:
        if not _ID.fullmatch(sandbox):
            raise
        return sandbox, ""


def _full(directory: Path) -> str:
    """What the logs cannot say, because they lie on a full disk; empty where there is room."""
    try:
        found = os.statvfs(directory)
    except OSError:
        return ""
    if found.f_bavail * found.f_frsize >= _SHORT:
        return ""
    return (
        f"the disk that holds {directory.parent} is full: connections of sandboxes are refused because they cannot be "
        "recorded, and these logs may miss lines; free some space"
    )


def show(ctx: Context, follower: Follower) -> None:
    """Show what was added to the logs, on stderr."""
    for written in follower.added():
        ctx.progress(f"{written.process}: {written.text}")


def install(ctx: Context, *, print_only: bool) -> str | None:
    """Write the systemd user unit, or return its text."""
    from irons_plugins.local import systemd

    if print_only:
        return systemd.render(sys.executable)
    path = systemd.write(ctx.settings.env, sys.executable)
    ctx.progress(f"wrote {path}")
    if not systemd.runs_machine():
        ctx.progress(
            "systemd does not run this machine: nothing starts the unit, and each command starts the backend"
        )
        return None
    if said := systemd.complaint(path, ctx.settings.env):
        ctx.progress(said)
    ctx.progress("start it with: systemctl --user daemon-reload && systemctl --user enable --now irons")
    return None


def uninstall(ctx: Context, *, purge: bool, dry_run: bool, yes: bool) -> object:
    """List what would go, ask, and remove it."""
    from irons_plugins.local import uninstall as removal

    paths = paths_of(ctx.settings)
    with on_this_machine(ctx) as here:
        found = removal.find(here, paths, purge=purge)
        if dry_run or not found:
            return found
        if not yes:
            for item in found:
                ctx.progress(f"{item.what}: {item.path}")
            words = "irons local uninstall --purge" if purge else "irons local uninstall"
            if not ctx.confirm(
                f"Remove these {len(found)}?", otherwise=f"{words} --yes, or --dry-run to see"
            ):
                raise IronsError("nothing was removed")
        removal.remove(here, paths, found, purge=purge)
        return found


def connect(ctx: Context, *, cell: str, port: str | None) -> None:
    """Hand a connected descriptor to the ssh that started this."""
    from irons_local.daemon import proxy

    del port
    proxy.connect_descriptor(cell, environ=ctx.settings.env)
