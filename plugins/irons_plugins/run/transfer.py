"""Files into a sandbox and out of it: an archive over one SSH connection, made here and read there, or the other way round."""

from __future__ import annotations

import contextlib
import os
import select
import shlex
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from irons.errors import IronsError, UsageError
from irons.record import NamedTuple
from irons.text import clean
from irons_plugins.run.packing import pack
from irons_plugins.run.placing import Placed, Placer, PlacingError
from irons_plugins.run.tar_reader import TarError, TarReader
from irons_plugins.ssh.connect.workdir import GO_TO
from irons_plugins.ssh.openssh.command_line import ssh_argv

if TYPE_CHECKING:
    from irons.context import Context
    from irons_plugins.run.choosing import Chosen
    from irons_plugins.ssh.connect.connect_info import Entrance

PLACE = "~/work"
"""Where files are sent to, and where the program starts then."""

STALLED = 300
"""Seconds without a byte after which a result is given up."""

_CHUNK = 1 << 18
_KEPT = 4096
"""Bytes that are kept of what the other side says on stderr: its last ones."""

_UNPACK = 'mkdir -p "$HOME/work" && cd "$HOME/work" && exec tar -xf -'
_ABSENT = 66
_PACK = (
    GO_TO
    + rf"""
go_to "${{1:-~}}" || exit {_ABSENT}
[ -e "./$2" ] || [ -L "./$2" ] || exit {_ABSENT}
if tar --version 2>/dev/null | grep -q GNU; then
  exec tar -cSf - --format=gnu "./$2"
fi
exec tar -cf - "./$2"
"""
)


class WantedFile(NamedTuple):
    """What to fetch.

    Attributes:
        text: as the caller wrote it.
        start: the directory there that `path` is relative to; empty is where the program starts.
        path: what is fetched, relative.
        below: where it lands here, as components below the target.
        asked: what messages call it.
    """

    text: str
    start: str
    path: str
    below: tuple[str, ...]
    asked: str = "--bring "


class AbsentError(IronsError):
    """There is nothing of that name in the sandbox."""


def wanted(text: str) -> WantedFile:
    """Read a path of `--bring`: a relative one lands at the same place here, any other under its last name.

    Raises:
        UsageError: it has no name, or climbs.
    """
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts or "\0" in text:
        raise UsageError(f"--bring {text!r}: a path with '..' is not fetched")
    if text.startswith(("/", "~")):
        if len(parts) < (1 if text.startswith("/") else 2):
            raise UsageError(f"--bring {text!r}: name a file or directory in it")
        start, _, _ = text.rstrip("/").rpartition("/")
        return WantedFile(text, start or "/", parts[-1], (parts[-1],))
    if not text:
        raise UsageError("--bring takes a path")
    return WantedFile(text, "", "/".join(parts) or ".", tuple(parts))


def send(ctx: Context, way: Entrance, files: Chosen) -> None:
    """Send files to `~/work`.

    Raises:
        IronsError: they did not get there.
        OSError: one cannot be read.
    """
    with _session(ctx, way, _UNPACK, stdin=subprocess.PIPE) as (process, said):
        trouble: OSError | None = None
        try:
            with _stream(process.stdin) as into:
                pack(files, into)
        except BrokenPipeError:
            pass
        except OSError as error:
            trouble = error
        code = process.wait()
    if trouble is not None:
        raise trouble
    if code:
        raise IronsError(f"the files were not sent to {way.name}: {said.last(code)}")


def bring(ctx: Context, way: Entrance, what: WantedFile, start: str, target: Path, most: int) -> Placed:
    """Fetch a file or directory, and put it below `target`.

    Args:
        ctx: The call's context.
        way: How to get there.
        what: What to fetch.
        start: Where the program started.
        target: The directory here.
        most: Bytes of data that may come.

    Raises:
        AbsentError: it is not there.
        IronsError: it did not arrive, or what came is refused; what is whole by then stays.
    """
    line = shlex.join(["exec", "sh", "-c", _PACK, "irons-bring", what.start or start, what.path])
    with (
        _session(ctx, way, line, stdin=subprocess.DEVNULL) as (process, said),
        contextlib.closing(Placer(target, what.below, most)) as placer,
    ):
        output, reader = _stream(process.stdout), TarReader()
        try:
            while data := _read(output):
                for event in reader.feed(data):
                    placer.take(event)
        except (TarError, PlacingError) as error:
            raise IronsError(f"{what.asked}{what.text}: {error}") from None
        except TimeoutError:
            raise IronsError(f"{what.asked}{what.text}: nothing came for {STALLED} s") from None
        except OSError as error:
            raise IronsError(f"{what.asked}{what.text}: {error.strerror or error}") from None
        code = process.wait()
        if code == _ABSENT:
            raise AbsentError(f"{what.asked}{what.text}: there is no such file in {way.name}")
        try:
            reader.finish()
        except TarError as error:
            raise IronsError(f"{what.asked}{what.text}: {error}: {said.last(code)}") from None
    if code > 1:
        raise IronsError(f"{what.asked}{what.text}: not all of it came: {said.last(code)}")
    return placer.placed


def _read(output: IO[bytes]) -> bytes:
    if not select.select([output], [], [], STALLED)[0]:
        raise TimeoutError
    return os.read(output.fileno(), _CHUNK)


class _Said:
    """The end of what the other side says on stderr, in bounded memory."""

    def __init__(self, pipe: IO[bytes]) -> None:
        self._pipe = pipe
        self._tail = b""
        self._thread = threading.Thread(target=self._drain, daemon=True)
        self._thread.start()

    def _drain(self) -> None:
        while data := os.read(self._pipe.fileno(), _CHUNK):
            self._tail = (self._tail + data)[-_KEPT:]

    def text(self) -> str:
        """Its last line, fit for a terminal."""
        self._thread.join()
        lines = self._tail.decode(errors="replace").strip().splitlines()
        return clean(lines[-1], limit=300) if lines else ""

    def last(self, code: int) -> str:
        """Its last line, or the exit code."""
        return self.text() or f"exit code {code}"


@contextlib.contextmanager
def _session(
    ctx: Context, way: Entrance, line: str, *, stdin: int
) -> Iterator[tuple[subprocess.Popen[bytes], _Said]]:
    """Run a line in the sandbox over pipes; OpenSSH has ended afterwards in every case."""
    options = (("BatchMode", "yes"), ("LogLevel", "ERROR"), *way.options)
    argv = ssh_argv(way.target, options, ("-T",), line)
    try:
        process = subprocess.Popen(
            argv,
            env=dict(ctx.settings.env),
            stdin=stdin,
            stdout=subprocess.PIPE if stdin == subprocess.DEVNULL else subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
    except FileNotFoundError:
        raise IronsError(
            "ssh is not installed", hint="install OpenSSH's client: apt-get install openssh-client"
        ) from None
    said = _Said(_stream(process.stderr))
    try:
        yield process, said
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        said.text()
        for pipe in (process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _stream(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise RuntimeError("the stream is not a pipe")
    return pipe
