"""Reading the logs of the backend's processes: their ends, what belongs to one request or sandbox, and what is added."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from irons_local.log.line import Line, parse

_PIECE = 1 << 16
"""Bytes of a log that are read at once while it is followed."""


class Written(NamedTuple):
    """What a process wrote.

    Attributes:
        process: the name of its log: `keeper`, `server`, `gateway` or `gateway-0` and so on.
        text: one line, as it is in the log.
    """

    process: str
    text: str


def logs_of(directory: Path, process: str) -> list[Path]:
    """Return the logs of a process; each worker of the gateway has its own, and so has what they are forked from."""
    return sorted({*directory.glob(f"{process}.log"), *directory.glob(f"{process}-*.log")})


def ends(directory: Path, processes: tuple[str, ...], most: int) -> Iterator[Written]:
    """Yield the last `most` lines of each log."""
    for process in processes:
        for path in logs_of(directory, process):
            for text in deque(_lines(path), most):
                yield Written(path.stem, text)


def of_request(directory: Path, processes: tuple[str, ...], request: str, most: int) -> list[Written]:
    """Return the last lines that belong to a request, of all processes in the order of time."""
    return _chosen(directory, processes, lambda line: line.request == request, most)


def of_sandbox(directory: Path, processes: tuple[str, ...], sandbox: str, most: int) -> list[Written]:
    """Return the last lines that belong to a sandbox or name it, of all processes in the order of time.

    Args:
        directory: where the logs are.
        processes: whose.
        sandbox: its id.
        most: how many lines.
    """
    return _chosen(directory, processes, lambda line: line.sandbox == sandbox or sandbox in line.text, most)


def _chosen(
    directory: Path, processes: tuple[str, ...], wanted: Callable[[Line], bool], most: int
) -> list[Written]:
    found: list[tuple[str, Written]] = []
    for process in processes:
        for path in logs_of(directory, process):
            time = ""
            # What a log was cut at is before it.
            for text in (*_lines(path.with_suffix(".log.1")), *_lines(path)):
                line = parse(text)
                if line is not None:
                    time = line.time if wanted(line) else ""
                # Indented lines belong to the line before them.
                if time:
                    found.append((time, Written(path.stem, text)))
    found.sort(key=lambda each: each[0])
    return [written for _, written in found[-most:]]


def _lines(path: Path) -> Iterator[str]:
    with suppress(FileNotFoundError), path.open(errors="replace") as file:
        for text in file:
            yield text.rstrip("\n")


class Follower:
    """Gives what is added to the logs of a directory from now on.

    Args:
        directory: where the logs are, or will be.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._read = {path: path.stat().st_size for path in directory.glob("*.log")}
        self._begun: dict[Path, bytes] = {}

    def added(self) -> Iterator[Written]:
        """Yield the lines that were completed since it was last asked."""
        for path in sorted(self._directory.glob("*.log")):
            with suppress(OSError):
                size, read = path.stat().st_size, self._read.get(path, 0)
                # One that is shorter was cut, and begins again.
                yield from self._more(path, read if size >= read else 0)

    def _more(self, path: Path, read: int) -> Iterator[Written]:
        with path.open("rb") as file:
            file.seek(read)
            while piece := file.read(_PIECE):
                self._read[path] = file.tell()
                *lines, rest = (self._begun.pop(path, b"") + piece).split(b"\n")
                # A line without an end is not kept for ever.
                self._begun[path] = rest[-_PIECE:]
                for line in lines:
                    yield Written(path.stem, line.decode("utf-8", "replace"))
