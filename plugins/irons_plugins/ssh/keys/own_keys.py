"""Keys that irons makes itself, where a person has none: one per server, below the state directory, for its owner alone."""

from __future__ import annotations

import fcntl
import json
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from irons.errors import ConfigError, UsageError
from irons.files import make_private, write_whole
from irons.record import NamedTuple
from irons_plugins.ssh.keys.public_key import PublicKey, default_key, find_key, read_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from irons.context import Context
    from irons.settings.settings import Settings

KEY = "id_ed25519"
LOCAL = "local"
_SERVER = "server"


class LockedOut(NamedTuple):
    """A sandbox elsewhere that only a key of irons' own opens from here."""

    name: str
    server: str


def key_for(ctx: Context, named: str | None) -> PublicKey:
    """Return the public key for a new sandbox: the one that was named, else one of the person's own, else one of irons'.

    Raises:
        UsageError: The named one is not a public key; or a key can't be made.
        ConfigError: The state directory can't be written.
    """
    if named:
        return find_key(named, ctx.settings.env)
    return default_key(ctx.settings.env) or _own(ctx)


def key_at_hand(settings: Settings) -> Path:
    """Return the public key file to name to a person: the first in ~/.ssh, else irons' own for the server, else a usual name."""
    own = _own_path(settings).with_suffix(".pub")
    with suppress(UsageError):
        usual = default_key(settings.env)
        if usual is not None:
            return usual.path
        if own.is_file():
            return own
    return Path(settings.env.get("HOME") or Path.home()) / ".ssh" / f"{KEY}.pub"


def _own(ctx: Context) -> PublicKey:
    server = ctx.settings.api_url
    path = _own_path(ctx.settings)
    directory = path.parent
    try:
        make_private(directory)
        with (directory / "lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.with_suffix(".pub").is_file():
                _make(path, server)
                ctx.progress(
                    f"there is no key in ~/.ssh, so irons made one for the sandboxes of {server}: {path}"
                )
    except OSError as error:
        raise ConfigError(f"{directory} can't be written: {error.strerror}") from None
    return read_key(path.with_suffix(".pub"))


def _make(path: Path, server: str) -> None:
    """Make a key pair, whole or not at all: the public file comes last."""
    # Every create asks for a key and hardly one makes it: these take as long to import as all else here.
    import shutil
    import subprocess
    import tempfile

    program = shutil.which("ssh-keygen")
    if program is None:
        raise UsageError(
            "ssh-keygen is not installed, so no key can be made", hint="irons doctor says how: ssh"
        )
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        fresh = Path(scratch) / KEY
        words = [program, "-q", "-t", "ed25519", "-N", "", "-C", "irons", "-f", str(fresh)]
        done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, check=False)
        if done.returncode:
            raise UsageError(f"ssh-keygen: {done.stderr.decode(errors='replace').strip() or done.returncode}")
        write_whole(path.with_name(_SERVER), f"{server}\n")
        fresh.rename(path)
        fresh.with_suffix(".pub").rename(path.with_suffix(".pub"))


def locked_out(settings: Settings) -> tuple[LockedOut, ...]:
    """Return the sandboxes of other machines that nothing opens from here once irons' own keys are gone."""
    directory = _directory(settings)
    found = []
    for names in _remembered(settings).values():
        for name, identity in names.items():
            path = Path(str(identity))
            if path.name == KEY and path.parent.parent == directory:
                server = _server_of(path.parent)
                if server != LOCAL:
                    found.append(LockedOut(name, server))
    return tuple(sorted(set(found)))


def _remembered(settings: Settings) -> Mapping[str, Mapping[str, object]]:
    """What each profile remembers of keys, as `identities` writes it."""
    try:
        found = json.loads((settings.state_dir / "ssh" / "identities.json").read_bytes())
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {profile: names for profile, names in found.items() if isinstance(names, dict)}


def _server_of(directory: Path) -> str:
    try:
        return (directory / _SERVER).read_text().strip()
    except (OSError, UnicodeDecodeError):
        return directory.name


def _own_path(settings: Settings) -> Path:
    return _directory(settings) / _slug(settings.api_url) / KEY


def _directory(settings: Settings) -> Path:
    return settings.state_dir / "ssh" / "keys"


def _slug(server: str) -> str:
    """A directory's name for a server: readable, and another one for each."""
    if server == LOCAL:
        return server
    import hashlib

    readable = re.sub(r"[^A-Za-z0-9.-]+", "_", server).strip("._")[:60]
    return f"{readable}-{hashlib.sha256(server.encode()).hexdigest()[:8]}"
