"""Whether any key of the person opens a sandbox: asked before an entry is written that could only be refused."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from irons_plugins.ssh.keys.access import id_of
from irons_plugins.ssh.keys.public_key import DEFAULTS, LARGEST

if TYPE_CHECKING:
    from irons.context import Context
    from irons_plugins.ssh.connect.connect_info import Entrance

_OTHER_WAYS = ("CertificateFile", "PKCS11Provider", "SecurityKeyProvider")
_AGENT_WITHIN = 30.0


def is_shut_out(ctx: Context, way: Entrance) -> bool:
    """Tell whether it is certain that no key of this person opens a sandbox; false where the server can't tell."""
    options = dict(way.options)
    if "access" not in ctx.api.extensions or not options.keys().isdisjoint(_OTHER_WAYS):
        return False
    allowed = {key.id for key in ctx.api.access(way.name)}
    return allowed.isdisjoint(_mine(ctx, way, only=options.get("IdentitiesOnly") == "yes"))


def _mine(ctx: Context, way: Entrance, *, only: bool) -> Iterator[str]:
    home = ctx.settings.env.get("HOME") or str(Path.home())
    named = [value.strip('"').replace("%%", "%") for key, value in way.options if key == "IdentityFile"]
    paths = [Path(home + path[1:] if path.startswith("~/") else path) for path in named]
    if not only:
        paths += [Path(home) / ".ssh" / name for name in DEFAULTS]
        yield from _ids(_of_agent(ctx))
    for path in paths:
        yield from _ids(_text(path if path.suffix == ".pub" else path.with_name(f"{path.name}.pub")))


def _ids(text: str) -> Iterable[str]:
    return filter(None, map(id_of, text.splitlines()))


def _text(path: Path) -> str:
    try:
        with path.open(errors="replace") as file:
            return file.read(LARGEST)
    except OSError:
        return ""


def _of_agent(ctx: Context) -> str:
    """The public keys of the ssh agent; none where there is no agent."""
    program = shutil.which("ssh-add") if ctx.settings.env.get("SSH_AUTH_SOCK") else None
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, "-L"],
            env={**os.environ, **ctx.settings.env},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_AGENT_WITHIN,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.decode(errors="replace") if done.returncode == 0 else ""
