"""Starting a keeper: what it inherits, and hearing from it that it serves, or why it does not."""

from __future__ import annotations

import json
import os
import select
import sys
import time
from collections.abc import Mapping
from typing import Any

from irons.errors import LocalError
from irons_local.daemon.failure import START_WITHIN, broken
from irons_local.interpreter import options
from irons_local.keeper.supervise.spawn import PROXIES, STATE
from irons_local.paths import Paths, PathsError

_KEPT = (
    *("HOME", "PATH", "USER", "LOGNAME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "VIRTUAL_ENV"),
    *("XDG_STATE_HOME", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"),
    # Images are fetched by the daemon, perhaps through a proxy.
    *PROXIES,
    *(
        "DBUS_SESSION_BUS_ADDRESS",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "IRONS_CONFIG",
        "IRONS_PLUGINS",
        "IRONS_LOG",
    ),
)
_KEPT_FAMILIES = ("LC_", "PYTHON", "COVERAGE")
_ROOTS_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""Where root's daemon finds programs: not where a caller's shell, perhaps that of `sudo -E`, finds them."""


def start(paths: Paths, environ: Mapping[str, str] | None) -> None:
    """Start a keeper of its own session and parent, and wait until it takes requests.

    Raises:
        LocalError: it says why it can't.
    """
    # Only who starts it needs this; others save the time.
    import subprocess

    try:
        paths.create()
    except PathsError as error:
        raise LocalError(str(error), hint="`irons doctor` checks the state directory") from error
    read, write = os.pipe()
    keeper = ["-m", "irons_local.keeper.keeper", "--ready", str(write), STATE, str(paths.state)]
    argv = [sys.executable, *options(), *keeper]
    try:
        try:
            # It forks once more and the first process ends: the keeper is not a child of the caller.
            done = subprocess.run(
                argv,
                env=environment(paths, os.environ if environ is None else environ),
                cwd=paths.local,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(write,),
                timeout=START_WITHIN,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise LocalError(f"the irons daemon can't be started: {error}") from error
        finally:
            os.close(write)
        said = _line(read)
    finally:
        os.close(read)
    # Where another was quicker, theirs is as good.
    if "ok" not in said and "another" not in said:
        words = done.stderr.decode("utf-8", "replace").strip().splitlines()
        raise _unstarted(paths, str(said.get("error") or (words[-1] if words else "it ended at once")))


def _unstarted(paths: Paths, why: str) -> LocalError:
    """The error of a daemon that does not come up, with doctor's words where the machine is what it lacks."""
    from irons_local.doctor.readiness import obstacle

    check = obstacle(paths)
    error = broken(paths, why)
    if check is None:
        return error
    # The number and path of an error are what the check explains.
    said = "the irons daemon cannot run on this machine" if "[Errno " in why else error.message
    return LocalError(f"{said}: {check.what}", hint=check.fix)


def _line(fd: int) -> dict[str, Any]:
    """The one line of JSON that comes out of a pipe; empty if it ends or stays silent."""
    data = b""
    deadline = time.monotonic() + START_WITHIN
    while not data.endswith(b"\n"):
        ready, _, _ = select.select([fd], [], [], max(0.0, deadline - time.monotonic()))
        piece = os.read(fd, 4096) if ready else b""
        if not piece:
            return {}
        data += piece
    said = json.loads(data)
    return said if isinstance(said, dict) else {}


def environment(paths: Paths, environ: Mapping[str, str]) -> dict[str, str]:
    """What the daemon inherits: no keys, tokens or agents of the person who happened to start it."""
    kept = {
        name: value for name, value in environ.items() if name in _KEPT or name.startswith(_KEPT_FAMILIES)
    }
    # The places were settled by whoever calls; the daemon must come to the same ones.
    kept["XDG_STATE_HOME"] = str(paths.state.parent)
    kept.setdefault("HOME", "/")
    if os.geteuid() == 0:
        kept["PATH"] = _ROOTS_PATH
    return kept
