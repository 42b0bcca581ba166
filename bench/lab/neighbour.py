"""A program in a sandbox that lives an ordinary life next to others, run in a network namespace: in its sandbox's cell.

`python neighbour.py PORT NAME SECONDS [PATIENCE]` looks a name up at the cell's name server and fetches a page from there, again and
again, and prints one JSON object: {"lookups": [seconds of each], "fetches": [seconds of each], "failed": [why]}.
With PATIENCE, the seconds after which it gives up, the time in which this process itself did not run is taken off.
"""

from __future__ import annotations

import itertools
import json
import socket
import struct
import sys
import threading
import time

NAME_SERVER = ("100.64.0.1", 53)
PATIENCE = 5.0
"""Seconds after which a program gives up; glibc's resolver asks again after as many."""
PAUSE = 0.005


def look_up(name: str, number: int, patience: float) -> str:
    """Ask for a name's address."""
    labels = b"".join(bytes([len(label)]) + label for label in name.encode().split(b"."))
    query = (
        struct.pack(">HHHHHH", number & 0xFFFF, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)
    )
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(patience)
        sock.sendto(query, NAME_SERVER)
        return socket.inet_ntoa(sock.recv(512)[-4:])


def fetch(address: str, port: int, name: str, patience: float) -> None:
    """Fetch a page, to its end."""
    with socket.create_connection((address, port), timeout=patience) as sock:
        sock.sendall(f"GET / HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n".encode())
        answer = b""
        while more := sock.recv(4096):
            answer += more
        if not answer.endswith(b"done\n"):
            raise OSError(f"it answered {answer[:80]!r}")


class Stillness:
    """Notices when this process stood still, as on a machine that does: a thread of it wakes late then."""

    def __init__(self) -> None:
        self._spans: list[tuple[float, float]] = []
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        before = time.monotonic()
        while True:
            time.sleep(PAUSE)
            now = time.monotonic()
            if now - before > 4 * PAUSE:
                self._spans.append((before + PAUSE, now))
            before = now

    def within(self, began: float, ended: float) -> float:
        """How many seconds of these it stood still."""
        return sum(max(0.0, min(ended, end) - max(began, begin)) for begin, end in self._spans)


def live(
    port: int, name: str, seconds: float, patience: float = PATIENCE, still: Stillness | None = None
) -> dict[str, list[float] | list[str]]:
    """Look up and fetch for so long; where it is known when this process stood still, that is taken off."""
    lookups: list[tuple[float, float]] = []
    fetches: list[tuple[float, float]] = []
    failed: list[str] = []
    began = time.monotonic()
    for number in itertools.count():
        now = time.monotonic()
        if now - began > seconds:
            break
        try:
            address = look_up(name, number, patience)
            looked = time.monotonic()
            lookups.append((now, looked))
            fetch(address, port, name, patience)
            fetches.append((looked, time.monotonic()))
        except OSError as error:
            failed.append(f"{time.monotonic() - began:.1f} s: {error}")
        time.sleep(PAUSE)

    def taken(steps: list[tuple[float, float]]) -> list[float]:
        return [end - begin - (0.0 if still is None else still.within(begin, end)) for begin, end in steps]

    return {"lookups": taken(lookups), "fetches": taken(fetches), "failed": failed}


if __name__ == "__main__":
    asked_for = float(sys.argv[3])
    if sys.argv[4:]:
        print(json.dumps(live(int(sys.argv[1]), sys.argv[2], asked_for, float(sys.argv[4]), Stillness())))
    else:
        print(json.dumps(live(int(sys.argv[1]), sys.argv[2], asked_for)))
