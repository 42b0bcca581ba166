"""Where the local backend keeps its things: state that survives, and a runtime directory for sockets and the lock."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from irons.settings.xdg import STATE, named_directory

PRIVATE = 0o700


class PathsError(Exception):
    """A directory of ours cannot be used as it is: wrong owner, a link, or not writable."""


class Paths(NamedTuple):
    """The directories of one user's local backend, and the names within them.

    Attributes:
        state: what must survive a reboot, for the whole of irons.
        runtime: the lock and the sockets; may vanish with a reboot.
    """

    state: Path
    runtime: Path

    @classmethod
    def of(cls, environ: Mapping[str, str] | None = None, uid: int | None = None) -> Paths:
        """The places an environment names (the XDG base directory specification); creates nothing.

        Args:
            environ: environment variables; this process's own when None.
            uid: whose places; this process's effective user when None.

        Raises:
            PathsError: neither `XDG_STATE_HOME` nor `HOME` is an absolute path.
        """
        environ = os.environ if environ is None else environ
        uid = os.geteuid() if uid is None else uid
        state = _state(environ)
        return cls(state=state, runtime=_runtime(environ, uid, state))

    @property
    def local(self) -> Path:
        """All that the local backend keeps."""
        return self.state / "local"

    @property
    def images(self) -> Path:
        """`NAME/rootfs/` and `NAME/image.json` of every image."""
        return self.local / "images"

    @property
    def sandboxes(self) -> Path:
        """`ID/` of every sandbox: its upper layer and what its engine needs."""
        return self.local / "sandboxes"

    @property
    def layers(self) -> Path:
        """`ID/tree/` and `ID/layer.json` of every layer that images and sandboxes share."""
        return self.local / "layers"

    @property
    def snapshots(self) -> Path:
        """`ID/snapshot.json` of every snapshot."""
        return self.local / "snapshots"

    @property
    def gateway(self) -> Path:
        """The gateway's own directory, its working directory: `policy/`, `names/`, `audit/`."""
        return self.local / "gateway"

    @property
    def fleet(self) -> Path:
        """A server's authority for its fleet, and `logs/NAME/` with copies of each member's audit logs."""
        return self.local / "fleet"

    @property
    def member(self) -> Path:
        """What the agent of a member keeps: who it is, and its cells and their policies."""
        return self.local / "member"

    @property
    def workers(self) -> Path:
        """Which worker of the gateway serves which cell, for the next keeper."""
        return self.local / "workers.json"

    @property
    def listening(self) -> Path:
        """Where the control plane listens; `irons local up` writes it, and the control plane reads it."""
        return self.local / "server.json"

    @property
    def logs(self) -> Path:
        """`keeper.log`, `server.log`, `gateway.log` of the warm process, `gateway-0.log` and so on of the workers."""
        return self.local / "logs"

    @property
    def database(self) -> Path:
        """The control plane's SQLite file."""
        return self.local / "irons.db"

    @property
    def reserve(self) -> Path:
        """Disk space for the last steps on a full disk; see `reserve`."""
        return self.local / "reserve"

    @property
    def lock(self) -> Path:
        """Held by the running keeper."""
        return self.runtime / "lock"

    @property
    def state_lock(self) -> Path:
        """Held by the running keeper too, and says where it serves: runtime directories come and go."""
        return self.local / "lock"

    @property
    def keeper_socket(self) -> Path:
        """Where the keeper listens."""
        return self.runtime / "keeper.sock"

    @property
    def api_socket(self) -> Path:
        """Where the control plane serves the v0 API."""
        return self.runtime / "api.sock"

    def image(self, name: str) -> Path:
        """The directory of one image."""
        return self.images / name

    def sandbox(self, identity: str) -> Path:
        """The directory of one sandbox, by its id."""
        return self.sandboxes / identity

    def create(self) -> Paths:
        """Make every directory that is missing, owner-only, and check those that exist.

        Returns:
            These places, now usable.

        Raises:
            PathsError: a directory is a link, belongs to another, or cannot be made.
        """
        _private(self.state)
        _private(self.runtime)
        for directory in (self.local, self.images, self.layers, self.sandboxes, self.logs):
            _private(directory)
        _private(self.gateway, owned=False)
        return self


def _state(environ: Mapping[str, str]) -> Path:
    base = named_directory(*STATE, environ)
    if base is None:
        raise PathsError("no place for state: set HOME or XDG_STATE_HOME to an absolute path")
    return Path(base) / "irons"


def _runtime(environ: Mapping[str, str], uid: int, state: Path) -> Path:
    base = environ.get("XDG_RUNTIME_DIR", "")
    # A directory of another user is one that `sudo` or `su` carried over: never ours to use.
    if base.startswith("/") and _owner(base) == uid:
        return Path(base) / "irons"
    return Path("/run/irons") if uid == 0 else state / "run"


def _owner(path: str) -> int | None:
    try:
        return Path(path).lstat().st_uid
    except OSError:
        return None


def _private(path: Path, *, owned: bool = True) -> None:
    """Make `path` a directory that only its owner can enter.

    Args:
        path: the directory.
        owned: whether it must be ours; the gateway's belongs to the gateway's own user where there is one.
    """
    try:
        path.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            path.mkdir(mode=PRIVATE)
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise PathsError(f"{path} is not a directory; move it away")
        if owned and found.st_uid != os.geteuid():
            raise PathsError(f"{path} belongs to user {found.st_uid}, not to you; move it away")
        if stat.S_IMODE(found.st_mode) & 0o077:
            path.chmod(PRIVATE)
    except OSError as error:
        raise PathsError(f"cannot use {path}: {error.strerror or error}") from error
