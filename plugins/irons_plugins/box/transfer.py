"""Files and directories into a sandbox and out of it: an archive on the way, placed here as untrusted."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from irons.errors import IronsError, NotFound, UsageError
from irons.text import clean
from irons_plugins.box.running import RunningProgram
from irons_plugins.run.choosing import whole
from irons_plugins.run.packing import pack
from irons_plugins.run.transfer import AbsentError, WantedFile, bring
from irons_plugins.ssh.connect.connect_info import entrance
from irons_plugins.ssh.execute.program import Program

if TYPE_CHECKING:
    from irons_plugins.box.calls import Library
    from irons_plugins.run.placing import Placed

MOST = 4 << 30
"""Bytes that `download` fetches, unless its caller asks for more."""

_UNPACK = r"""
irons_path=$1
case $irons_path in
  '~') irons_path=$HOME ;;
  '~/'*) irons_path=$HOME/${irons_path#'~/'} ;;
  /*) ;;
  *) irons_path=$HOME/$irons_path ;;
esac
mkdir -p -- "$irons_path" && cd -- "$irons_path" && exec tar -xf -
"""


def send(library: Library, name: str, source: Path, into: str) -> None:
    """Copy a file or directory into a directory of a sandbox; the errors are those of `Box.upload`."""
    if not into or "\0" in into:
        raise UsageError(f"{into!r} is not a path")
    try:
        files = whole(source)
    except OSError as error:
        raise IronsError(f"{source}: {error.strerror or error}") from None
    read, write = os.pipe()
    running = RunningProgram(
        library,
        name,
        Program(("sh", "-c", _UNPACK, "irons-files", into)),
        stdin=os.fdopen(read, "rb", buffering=0),
        egress=False,
    )
    try:
        with contextlib.suppress(BrokenPipeError), os.fdopen(write, "wb", buffering=0) as pipe:
            pack(files, pipe)
    except OSError as error:
        running.stop()
        running.wait()
        raise IronsError(f"{error.filename or source}: {error.strerror or error}") from None
    except BaseException:
        running.stop()
        raise
    result = running.wait()
    if result is not None and result.exit:
        lines = result.stderr_bytes.decode(errors="replace").strip().splitlines()
        why = clean(lines[-1], limit=300) if lines else result.message or f"exit code {result.exit}"
        raise IronsError(f"{source} was not copied into {name}: {why}")


def fetch(library: Library, name: str, path: str, into: Path, most: int) -> Placed:
    """Copy a file or directory of a sandbox into a directory here; the errors are those of `Box.download`."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    bare = 1 if path.startswith("~") else 0
    if "\0" in path or ".." in parts or len(parts) <= bare:
        raise UsageError(f"{path!r}: name a file or directory, without '..'")
    if not into.is_dir():
        raise UsageError(f"{into} is not a directory here")
    start = path.rstrip("/").rpartition("/")[0]
    if not start:
        start = "/" if path.startswith("/") else "~"
    elif not start.startswith(("/", "~")):
        start = f"~/{start}"
    wanted = WantedFile(path, start, parts[-1], (parts[-1],), asked="")
    context = library.context()
    way = entrance(context, name)
    try:
        return bring(context, way, wanted, start, into, most)
    except AbsentError as error:
        raise NotFound(f"there is no {path} in {name}") from error
