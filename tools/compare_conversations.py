"""Hold the conversation without I/O against the live gateway's: the same made-up conversations through both.

    python -m tools.compare_conversations [--first N] [--count N] [--processes N]

Each number is one conversation (`numbered` of `tests/local/gateway/conversations.py`). Both must let the same bytes on to each
side and write the same records in the same order. A pair that differs is tried twice more, as the live side runs over sockets:
what differs each time is printed as a difference, and what agrees later as unsteady. Ends with 1 where there is a difference.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.local.gateway.conversations import numbered
from tests.local.gateway.live_talks import live
from tests.local.gateway.talks import Outcome, Talk, same, without_io

PART = 200
TRIES = 3


class Found(NamedTuple):
    """What came of some conversations.

    Attributes:
        total: how many there were.
        refused: how many of them were refused at some point.
        reached: how many reached a server.
        unsteady: those that agreed only when tried again.
        differences: one text for each that never did.
    """

    total: int
    refused: int
    reached: int
    unsteady: list[int]
    differences: list[str]


def compare(numbers: range) -> Found:
    """Run these conversations through both."""
    refused = reached = 0
    unsteady: list[int] = []
    differences: list[str] = []
    with tempfile.TemporaryDirectory(prefix="irons-conversations-") as home:
        for number in numbers:
            talk = numbered(number)
            for trial in range(1, TRIES + 1):
                new = without_io(talk)
                old = live(talk, Path(home) / f"{number}-{trial}", new)
                if same(talk, old, new):
                    unsteady += [number] if trial > 1 else []
                elif trial == TRIES:
                    differences.append(_told(number, talk, old, new))
                else:
                    continue
                refused += any(
                    kind == "refused" or fields.get("verdict") == "blocked" for kind, fields in new.records
                )
                reached += any(
                    kind == "close" and fields["outcome"] == "reached" for kind, fields in new.records
                )
                break
    return Found(len(numbers), refused, reached, unsteady, differences)


def _told(number: int, talk: Talk, old: Outcome, new: Outcome) -> str:
    mode = None if talk.rules is None else talk.rules["mode"]
    lines = [f"conversation {number}: to {talk.name or 'an address'} port {talk.port}, mode {mode}"]
    lines[0] += f", room for {talk.room} records"
    lines += [f"  {turn!r:.200}" for turn in talk.turns]
    for what in ("out", "back", "records"):
        if getattr(old, what) != getattr(new, what):
            lines += [
                f"  {what}, live:    {getattr(old, what)!r}",
                f"  {what}, machine: {getattr(new, what)!r}",
            ]
    return "\n".join(lines)


def _parts(first: int, count: int) -> Iterator[range]:
    for begin in range(first, first + count, PART):
        yield range(begin, min(begin + PART, first + count))


def main() -> int:
    """Compare, and print; 1 where something differs."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--first", type=int, default=0, help="number of the first conversation (default: 0)")
    words.add_argument("--count", type=int, default=100_000, help="how many (default: 100000)")
    words.add_argument(
        "--processes", type=int, default=os.cpu_count() or 1, help="at once (default: the processors)"
    )
    asked = words.parse_args()
    began, total, refused, reached = time.monotonic(), 0, 0, 0
    unsteady: list[int] = []
    differences = 0
    with multiprocessing.Pool(asked.processes) as pool:
        for found in pool.imap_unordered(compare, _parts(asked.first, asked.count)):
            total, refused, reached = total + found.total, refused + found.refused, reached + found.reached
            unsteady += found.unsteady
            differences += len(found.differences)
            for text in found.differences:
                print(text, flush=True)
            if total % (PART * 50) == 0:
                print(f"{total} so far, {time.monotonic() - began:.0f} s", flush=True)
    print(f"{total} conversations: {refused} refused, {reached} reached a server; {differences} differ")
    print(f"agreed only when tried again: {len(unsteady)} {sorted(unsteady)[:20]}")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
