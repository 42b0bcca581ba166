"""A connection to a sandbox's SSH server that OpenSSH keeps for a while, so that what follows need not log in again.

It is a master of OpenSSH's (`ControlMaster`, ssh_config(5)): a process without the agent, X11, tunnels, forwardings or variables. Its
socket lies in the owner's runtime directory; its name stands for the server, the sandbox and its id, its host keys, the user, the key
and every option that counts. So a sandbox of the same name, another key or another configuration have another connection. It ends by
itself after a minute without work, and with the SSH server that it leads to.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from irons.files import digest, make_private
from irons.record import NamedTuple
from irons_plugins.ssh.connect.heir import heir
from irons_plugins.ssh.openssh.command_line import Options, quoted, ssh_argv

if TYPE_CHECKING:
    from irons.context import Context
    from irons.settings.settings import Settings
    from irons_plugins.ssh.connect.connect_info import Entrance

IDLE = 60
"""Seconds without work after which a connection ends."""

LOGIN_WITHIN = 10
"""Seconds that logging in may take; later it is left to the command itself."""

ALIVE_EVERY = 10
"""Seconds of silence after which the server is asked whether it is there; the third time in vain ends the connection."""

_SUN_PATH = 107
_LOOK_EVERY = 0.01
_END_WITHIN = 5.0

_MASTER: Options = (
    ("ControlMaster", "yes"),
    ("BatchMode", "yes"),
    ("ClearAllForwardings", "yes"),
    ("ServerAliveInterval", str(ALIVE_EVERY)),
    ("ServerAliveCountMax", "2"),
    ("LogLevel", "QUIET"),
)


class _Place(NamedTuple):
    """Where a connection's socket is, and the options that lead over it."""

    directory: Path
    name: str

    @property
    def path(self) -> Path:
        return self.directory / self.name


@contextmanager
def over_kept(ctx: Context, way: Entrance, *, orphaned: str, idle: int = IDLE) -> Iterator[Entrance]:
    """Give the way over a kept connection, made where there is none; else, where none can be kept, the way as it was.

    A way that forwards the agent is left alone. Where the server opens no further session on the connection, OpenSSH makes another.

    Args:
        ctx: The call's context.
        way: The way without it.
        orphaned: A line for the sandbox's shell, run should this process be killed before it leaves the context. A server tells a
            program nothing of a channel that closes while the connection goes on, but that no one reads its stdout.
        idle: Seconds without work after which a connection that is made here ends.
    """
    place = _place(ctx.settings, way)
    if place is None or not (_answers(place) or _made(ctx.settings, way, place, idle)):
        yield way
        return
    path, descriptor = str(place.path), -1
    if len(os.fsencode(path)) > _SUN_PATH:
        # OpenSSH closes what it inherits, so it is given the way to a descriptor of this process.
        descriptor = os.open(place.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        path = f"/proc/{os.getpid()}/fd/{descriptor}/{place.name}"
    try:
        quiet = (("LogLevel", "QUIET"), ("BatchMode", "yes"), ("ConnectTimeout", str(int(_END_WITHIN))))
        over = (*quiet, *_over(f"./{place.name}", way.options))
        argv = ssh_argv(way.target, over, ("-n", "-T"), orphaned)
        with heir(argv, place.directory, ctx.settings.env):
            yield way._replace(options=_over(path, way.options))
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def kept_socket(way: Entrance) -> str | None:
    """Return the socket of the kept connection that a way leads over; None where it leads over none."""
    path = dict(reversed(way.options)).get("ControlPath", "none")
    if path == "none":
        return None
    if path.startswith('"'):
        path = path[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    return path.replace("%%", "%")


def over_existing(ctx: Context, way: Entrance) -> Entrance:
    """Return the way over a connection that is kept already, for a program that takes this process's place; else the way as it was."""
    place = _place(ctx.settings, way)
    if place is None or len(os.fsencode(place.path)) > _SUN_PATH or not _answers(place):
        return way
    return way._replace(options=_over(str(place.path), way.options))


def existing(settings: Settings, name: str, within: float) -> Path | None:
    """Return the socket of a connection that is kept to a sandbox now, the newest of several; None where there is none.

    Args:
        settings: Whose connections.
        name: The sandbox, as it was named when the connection was made.
        within: Seconds that finding out may take.
    """
    directory = _runtime(settings)
    if directory is None:
        return None
    found: list[tuple[float, Path]] = []
    for path in directory.glob(f"{digest(settings.api_url, name)[:10]}-*"):
        with contextlib.suppress(OSError):
            state = path.lstat()
            if stat.S_ISSOCK(state.st_mode) and state.st_uid == os.geteuid():
                found.append((state.st_mtime, path))
    newest = max(found, default=None)
    return newest[1] if newest is not None and _answers(_Place(directory, newest[1].name), within) else None


def end_kept(settings: Settings, name: str, *, gently: bool = False) -> None:
    """End the connections to a sandbox.

    Args:
        settings: Whose connections.
        name: The sandbox.
        gently: Only let in nothing new: what runs over them goes on, as after a key has been removed.
    """
    directory = _runtime(settings)
    if directory is not None:
        _end(directory, f"{digest(settings.api_url, name)[:10]}-*", "stop" if gently else "exit")


def end_all(settings: Settings) -> None:
    """End every connection that is kept for this user, and remove their directory."""
    directory = _runtime(settings)
    if directory is not None and directory.is_dir():
        _end(directory, "*-*", "exit")
        with contextlib.suppress(OSError):
            for left in directory.iterdir():
                left.unlink()
            directory.rmdir()


def _place(settings: Settings, way: Entrance) -> _Place | None:
    """Where the connection of a way is; None where none may be kept."""
    target = way.target
    if not (target.cell or target.host_keys):
        # Nothing would tell it from another machine's.
        return None
    if dict(reversed(way.options)).get("ForwardAgent") != "no":
        return None
    directory = _runtime(settings)
    if directory is None:
        return None
    sandbox = digest(settings.api_url, way.name)[:10]
    return _Place(directory, f"{sandbox}-{digest(repr(target), repr(way.options))[:16]}")


def _runtime(settings: Settings) -> Path | None:
    """The directory of the sockets, below the one for sockets of the local backend; None where there is none."""
    uid, base = os.geteuid(), settings.env.get("XDG_RUNTIME_DIR", "")
    try:
        # A directory of another user is one that `sudo` or `su` carried over.
        ours = base.startswith("/") and Path(base).lstat().st_uid == uid
    except OSError:
        ours = False
    if ours:
        return Path(base) / "irons" / "ssh"
    return Path("/run/irons/ssh") if uid == 0 else settings.state_dir / "run" / "ssh"


def _over(path: str, options: Options) -> Options:
    kept = (("ControlPath", quoted(Path(path))), ("ControlMaster", "no"))
    return (*kept, *(option for option in options if option[0] != "ControlPath"))


def _answers(place: _Place, within: float = _END_WITHIN) -> bool:
    """Tell whether a master listens there, and takes a connection within so many seconds."""
    if not place.path.exists():
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.settimeout(within)
        try:
            if len(os.fsencode(place.path)) <= _SUN_PATH:
                sock.connect(str(place.path))
                return True
            directory = os.open(place.directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                sock.connect(f"/proc/self/fd/{directory}/{place.name}")
            finally:
                os.close(directory)
        except BlockingIOError:
            # It listens, and as many wait already as may.
            return True
        except OSError:
            return False
    return True


def _made(settings: Settings, way: Entrance, place: _Place, idle: int) -> bool:
    """Make a connection, or wait until another process has made it; False where there is none."""
    try:
        _make_directory(place.directory)
        with place.path.with_suffix(".lock").open("a") as lock:
            if not _locked(lock.fileno()):
                return False
            if _answers(place):
                return True
            place.path.unlink(missing_ok=True)
            return _begun(settings, way, place, idle) and _answers(place)
    except OSError:
        return False


def _make_directory(directory: Path) -> None:
    make_private(directory)
    for each in (directory.parent, directory):
        found = each.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o077:
            raise PermissionError(f"{each} is not its owner's alone")


def _locked(lock: int) -> bool:
    """Wait for a lock as long as a login may take."""
    until = time.monotonic() + LOGIN_WITHIN + 1
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                return False
            time.sleep(_LOOK_EVERY)
        else:
            return True


def _begun(settings: Settings, way: Entrance, place: _Place, idle: int) -> bool:
    """Log in; OpenSSH goes to the background once that is done, and then listens."""
    import subprocess

    # A relative path: OpenSSH adds to it while it makes the socket, and the whole may be too long.
    limits = (("ConnectTimeout", f"{LOGIN_WITHIN:.0f}"), ("ControlPersist", str(idle)))
    options = (*_MASTER, *limits, *_over(f"./{place.name}", way.options))
    argv = ssh_argv(way.target, [each for each in options if each != ("ControlMaster", "no")], ("-N", "-T"))
    try:
        done = subprocess.run(
            argv,
            env=dict(settings.env),
            cwd=place.directory,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # An interrupt key is for the command alone.
            start_new_session=True,
            timeout=LOGIN_WITHIN + 1,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def _end(directory: Path, pattern: str, how: str) -> None:
    import subprocess

    for path in directory.glob(pattern):
        if path.suffix == ".lock":
            # Its connection may have ended by itself.
            if how == "exit":
                path.unlink(missing_ok=True)
            continue
        words = ["ssh", "-F", "none", "-o", f"ControlPath=./{path.name}", "-O", how, "irons"]
        with contextlib.suppress(OSError, subprocess.TimeoutExpired):
            subprocess.run(
                words,
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_END_WITHIN,
                check=False,
            )
        with contextlib.suppress(OSError):
            path.with_suffix(".lock").unlink(missing_ok=True)
