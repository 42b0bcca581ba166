"""Files of a sandbox: read, written and listed by its own shell. What it answers is bounded, and its names are checked."""

from __future__ import annotations

import os
import re
import shlex
from datetime import UTC, datetime
from itertools import zip_longest
from typing import TYPE_CHECKING, Literal

from irons.errors import ApiError, IronsError, NotFound, TimedOut, UsageError
from irons.record import NamedTuple
from irons.text import clean
from irons_plugins.box.running import RunningProgram, held_bytes
from irons_plugins.ssh.execute.program import Program

if TYPE_CHECKING:
    from irons_plugins.box.calls import Library
    from irons_plugins.box.result import ExecResult

LARGEST = 64 << 20
"""Bytes of a file that `read` returns, unless its caller asks for more."""

MOST_ENTRIES = 10_000
"""Entries of a directory that `list` returns, unless its caller asks for more."""

_LONGEST_NAME = 255
_LONGEST_ROW = 3 * 20 + _LONGEST_NAME
_ABSENT, _WRONG_KIND, _SHORT = 66, 67, 68


class FileRefused(IronsError):
    """A sandbox's own program did not do it. `what` is irons' own part of the message, `said` the program's: untrusted text."""

    def __init__(self, what: str, said: str) -> None:
        """Take the file and the sandbox, and the last line that the program wrote, clean."""
        super().__init__(f"{what}: {said}")
        self.what = what
        self.said = said


class TooLarge(IronsError):
    """A file or a directory has more than its caller takes."""


# Paths in the sandbox are its shell's words. A relative one begins at the home directory, as `~/` does.
_PLACE = r"""
irons_path=$1
case $irons_path in
  '~') irons_path=$HOME ;;
  '~/'*) irons_path=$HOME/${irons_path#'~/'} ;;
  /*) ;;
  *) irons_path=$HOME/$irons_path ;;
esac
"""
_THERE = f'[ -e "$irons_path" ] || exit {_ABSENT}\n'

_READ = (
    _PLACE + _THERE + f'[ ! -d "$irons_path" ] || exit {_WRONG_KIND}\nexec head -c "$2" -- "$irons_path"\n'
)

_WRITE = (
    _PLACE
    + rf"""
[ ! -d "$irons_path" ] || exit {_WRONG_KIND}
irons_made=$irons_path.irons-$$
case $irons_path in */*) mkdir -p -- "${{irons_path%/*}}/" || exit 1 ;; esac
trap 'rm -f -- "$irons_made"' EXIT
if [ -f "$irons_path" ]; then cp -p -- "$irons_path" "$irons_made" || exit 1; fi
cat >"$irons_made" || exit 1
# The connection may have ended in the middle.
[ "$(($(wc -c <"$irons_made")))" = "$2" ] || exit {_SHORT}
[ -z "$3" ] || chmod "$3" "$irons_made" || exit 1
mv -f -- "$irons_made" "$irons_path"
"""
)

# Names end with a zero byte. Those of a batch come first, then an empty one, then a line for each from stat, which names nothing.
_BATCH = r"""
told() { stat -c '%f %s %Y' -- "$@" 2>/dev/null; }
if irons_told=$(told "$@"); then
  printf '%s\0' "$@"
  printf '\0%s\0' "$irons_told"
  exit
fi
# One of them has gone since.
for irons_name; do
  irons_told=$(told "$irons_name") && printf '%s\0\0%s\0' "$irons_name" "$irons_told"
done
exit 0
"""
_LIST = (
    _PLACE
    + _THERE
    + rf"""
[ -d "$irons_path" ] || exit {_WRONG_KIND}
cd -- "$irons_path" || exit 1
exec find . -mindepth 1 -maxdepth 1 -exec sh -c {shlex.quote(_BATCH)} irons-files {{}} +
"""
)

_TOLD = re.compile(r"([0-9a-f]{1,8}) ([0-9]{1,18}) (-?[0-9]{1,12})")
"""A line of stat: mode in hexadecimal, size, seconds since 1970."""

_KINDS: dict[int, Literal["file", "directory", "link", "other"]] = {
    0o100000: "file",
    0o040000: "directory",
    0o120000: "link",
}


class FileEntry(NamedTuple):
    """An entry of a directory in a sandbox, as the sandbox reports it.

    Attributes:
        name: Its name, without a slash; it may have any other character (`irons.text.clean` makes it fit for a terminal).
        kind: What it is; a link is not followed.
        size: In bytes.
        mode: Its permission bits.
        modified: When its content changed last.
    """

    name: str
    kind: Literal["file", "directory", "link", "other"]
    size: int
    mode: int
    modified: datetime | None


def read_file(library: Library, name: str, path: str, most: int, timeout: float | None) -> bytes:
    """Return a file's content; the errors are those of `Box.read`."""
    result, data = _asked(library, name, _READ, path, str(most + 1), most=most + 1, timeout=timeout)
    if result.exit:
        raise _refused(name, path, result, "is a directory")
    if len(data) > most:
        raise TooLarge(f"{path} in {name} is larger than {most:,} bytes", hint="most= takes a larger bound")
    return data


def write_file(
    library: Library, name: str, path: str, data: bytes, mode: int | None, timeout: float | None
) -> None:
    """Put a file in place whole; the errors are those of `Box.write`."""
    if mode is not None and not 0 <= mode <= 0o7777:
        raise UsageError(f"mode takes permission bits up to 0o7777, not {mode:#o}")
    bits = "" if mode is None else f"{mode:o}"
    result, _ = _asked(library, name, _WRITE, path, str(len(data)), bits, stdin=data, timeout=timeout)
    if result.exit == _SHORT:
        raise IronsError(f"{path} was not written in {name}: not all of it arrived")
    if result.exit:
        raise _refused(name, path, result, "is a directory")


def list_directory(
    library: Library, name: str, path: str, most: int, timeout: float | None
) -> tuple[FileEntry, ...]:
    """Return the entries of a directory by name; the errors are those of `Box.list`."""
    many = TooLarge(f"{path} in {name} has more than {most:,} entries", hint="most= takes a larger bound")
    result, data = _asked(
        library, name, _LIST, path, most=(most + 1) * _LONGEST_ROW, over=many, timeout=timeout
    )
    if result.exit:
        raise _refused(name, path, result, "is not a directory")
    entries = _entries(data, name, path)
    if len(entries) > most:
        raise many
    return entries


def _asked(
    library: Library,
    name: str,
    script: str,
    *words: str,
    stdin: bytes | None = None,
    most: int = 0,
    over: IronsError | None = None,
    timeout: float | None = None,
) -> tuple[ExecResult, bytes]:
    """Run a script with its words, and return how it ended and what it wrote; more than `most` bytes are an error.

    Raises:
        TimedOut: It did not end within `timeout` seconds, as where the file is a pipe that nothing writes to.
    """
    if "\0" in words[0] or not words[0]:
        raise UsageError(f"{words[0]!r} is not a path")
    data = bytearray()

    def take(part: bytes) -> None:
        data.extend(part)
        if len(data) > most:
            raise over or IronsError(f"{name} sent more than was asked for")

    running = RunningProgram(
        library,
        name,
        Program(("sh", "-c", script, "irons-files", *words), timeout=timeout),
        stdin=None if stdin is None else held_bytes(stdin),
        on_stdout=take,
        egress=False,
    )
    result = running.wait()
    if result is None:
        raise RuntimeError("a wait without a limit came back")
    if result.timed_out:
        raise TimedOut(
            f"{words[0]} in {name} did not answer within {timeout:g} s; it may be a pipe or a device"
        )
    return result, bytes(data)


def _refused(name: str, path: str, result: ExecResult, wrong_kind: str) -> IronsError:
    if result.exit == _ABSENT:
        return NotFound(f"there is no {path} in {name}")
    if result.exit == _WRONG_KIND:
        return IronsError(f"{path} in {name} {wrong_kind}")
    lines = result.stderr_bytes.decode(errors="replace").strip().splitlines()
    if lines:
        return FileRefused(f"{path} in {name}", clean(lines[-1], limit=300))
    return IronsError(f"{path} in {name}: {result.message or f'exit code {result.exit}'}")


def _entries(data: bytes, name: str, path: str) -> tuple[FileEntry, ...]:
    found: dict[str, FileEntry] = {}
    parts = iter(data.split(b"\0"))
    for first in parts:
        spelled = [first] if first else []
        while part := next(parts, b""):
            spelled.append(part)
        lines = next(parts, b"").decode("ascii", "replace").split("\n") if spelled else []
        for each, line in zip_longest(spelled, lines, fillvalue=None):
            entry = None if each is None or line is None else _entry(each, line)
            if entry is None:
                raise ApiError(f"{name} gave an invalid list of {path}")
            found[entry.name] = entry
    return tuple(found[each] for each in sorted(found))


def _entry(spelled: bytes, told: str) -> FileEntry | None:
    """Read a name and its line `mode size seconds`; None where one of them is invalid."""
    name = os.fsdecode(spelled.removeprefix(b"./"))
    if name in ("", ".", "..") or "/" in name or len(spelled) > _LONGEST_NAME + 2:
        return None
    found = _TOLD.fullmatch(told)
    if found is None:
        return None
    bits = int(found[1], 16)
    kind: Literal["file", "directory", "link", "other"] = _KINDS.get(bits & 0o170000, "other")
    return FileEntry(name, kind, int(found[2]), bits & 0o7777, _time(int(found[3])))


def _time(seconds: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
