"""Which files a program changed in a sandbox: its root file system is listed before and after, by a script in it.

What a sandbox lists is its own word: it is bounded, and text that is shown is cleaned.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from irons.errors import IronsError
from irons.record import NamedTuple
from irons.text import clean
from irons_plugins.ssh.execute.program import Program, run_program
from irons_plugins.ssh.execute.report import OutputTail
from irons_plugins.ssh.openssh.subprocess import Sinks

if TYPE_CHECKING:
    from irons.context import Context
    from irons_plugins.ssh.connect.connect_info import Entrance

ROOT = "/"
"""Where a listing begins; other file systems below it are left out."""

MOST = 64 << 20
"""Bytes that a listing may have: more than half a million files."""

SHOWN = 40
"""Files that people are shown; all are in the answer for programs."""

_MARKS = {"added": "+", "changed": "~", "removed": "-"}

# A file is the same where all but its path is: type, mode, owner, group, size, and when it was changed last, which no ordinary program can
# set back. A directory changes with what is in it: its size and its time say nothing more. BusyBox's find prints neither.
_LIST = r"""
as_root=
[ "$(id -u)" = 0 ] || ! sudo -n true 2>/dev/null || as_root="sudo -n"
if find --version 2>/dev/null | grep -q GNU; then
  echo nul
  exec $as_root find "$1" -xdev \( -type d -printf 'd %m %U %G%p\0' -o -printf '%y %m %U %G %s %C@%p\0' \)
fi
echo lines
$as_root find "$1" -xdev -type d ! -path '*
*' -exec stat -c 'd %a %u %g%n' {} +
exec $as_root find "$1" -xdev ! -type d ! -path '*
*' -exec stat -c '%f %u %g %s %z%n' {} +
"""


class ChangedFile(NamedTuple):
    """A file, or a directory, that is not as it was.

    Attributes:
        path: Where it is.
        change: `added`, `changed` or `removed`.
    """

    path: str
    change: str


class _Whole:
    """A sink that keeps all it gets, up to a limit."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.data = bytearray()
        self.over = False

    def __call__(self, data: bytes) -> None:
        """Take a piece; what is too much ends the program that writes it."""
        if len(self.data) + len(data) > self._most:
            self.over = True
            raise BrokenPipeError
        self.data += data


def listing(ctx: Context, way: Entrance) -> Mapping[bytes, bytes]:
    """List the files of a sandbox's root file system, each with what tells whether it was changed.

    Raises:
        IronsError: They can't be listed, or are too many.
        KeyboardInterrupt: Ctrl-C, TERM or HUP came.
    """
    out, err = _Whole(MOST), OutputTail(4096)
    program = Program(("sh", "-c", _LIST, "irons-files", ROOT), no_stdin=True)
    ran = run_program(ctx, way, program, Sinks(out, err))
    if ran.interrupt is not None:
        raise ran.interrupt
    if out.over:
        raise IronsError(f"{way.name} has too many files to compare them")
    if ran.ending.error is not None:
        raise ran.ending.error
    found = dict(files_of(bytes(out.data)))
    if not found:
        # What vanished while it was looked at makes find fail, too.
        said = (err.output().text.strip().splitlines() or [f"exit code {ran.ending.code}"])[-1]
        raise IronsError(f"the files of {way.name} can't be listed: {clean(said, limit=200)}")
    return found


def files_of(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Read a listing: yield each path, with what it is compared by. A last item without its end is left out."""
    form, _, rows = data.partition(b"\n")
    end = {b"nul": b"\0", b"lines": b"\n"}.get(form)
    if end is None:
        return
    for row in rows.split(end)[:-1]:
        about, slash, path = row.partition(b"/")
        if slash:
            yield b"/" + path, about


def compare(before: Mapping[bytes, bytes], after: Mapping[bytes, bytes]) -> tuple[ChangedFile, ...]:
    """Return what was added, changed and removed between two listings, by path."""
    found = [(path, "added") for path in after.keys() - before.keys()]
    found += [(path, "removed") for path in before.keys() - after.keys()]
    found += [(path, "changed") for path in before.keys() & after.keys() if before[path] != after[path]]
    return tuple(
        ChangedFile(path.decode(errors="backslashreplace"), change) for path, change in sorted(found)
    )


def lines(changed: Iterable[ChangedFile]) -> Iterator[str]:
    """Yield what is printed: how many there are of each kind, then the first ones."""
    rows = tuple(changed)
    counts = [(sum(row.change == change for row in rows), change) for change in _MARKS]
    counted = ", ".join(f"{count:,} {change}" for count, change in counts if count)
    yield f"files: {counted}" if counted else "no file was changed"
    for row in rows[:SHOWN]:
        yield f"  {_MARKS[row.change]} {clean(row.path)}"
    if len(rows) > SHOWN:
        yield f"  and {len(rows) - SHOWN:,} more: -o json has all"
