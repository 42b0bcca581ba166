"""A program in a sandbox that lives an ordinary life next to others, run in a network namespace: in its sandbox's cell.

`python neighbour.py PORT NAME SECONDS` looks a name up at the cell's name server and fetches a page from there, again and
again, and prints one JSON object: {"lookups": [seconds of each], "fetches": [seconds of each], "failed": [why]}.
"""

from __future__ import annotations

import itertools
import json
import socket
import struct
import sys
import time

NAME_SERVER = ("100.64.0.1", 53)
PATIENCE = 5.0
"""Seconds after which a program gives up; glibc's resolver asks again after as many."""
PAUSE = 0.005


def look_up(name: str, number: int) -> str:
    """Ask for a name's address."""
    labels = b"".join(bytes([len(label)]) + label for label in name.encode().split(b"."))
    query = (
        struct.pack(">HHHHHH", number & 0xFFFF, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)
    )
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(PATIENCE)
        sock.sendto(query, NAME_SERVER)
        return socket.inet_ntoa(sock.recv(512)[-4:])


def fetch(address: str, port: int, name: str) -> None:
    """Fetch a page, to its end."""
    with socket.create_connection((address, port), timeout=PATIENCE) as sock:
        sock.sendall(f"GET / HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n".encode())
        answer = b""
        while more := sock.recv(4096):
            answer += more
        if not answer.endswith(b"done\n"):
            raise OSError(f"it answered {answer[:80]!r}")


def live(port: int, name: str, seconds: float) -> dict[str, list[float] | list[str]]:
    """Look up and fetch for so long."""
    lookups: list[float] = []
    fetches: list[float] = []
    failed: list[str] = []
    began = time.monotonic()
    for number in itertools.count():
        now = time.monotonic()
        if now - began > seconds:
            break
        try:
            address = look_up(name, number)
            looked = time.monotonic()
            lookups.append(looked - now)
            fetch(address, port, name)
            fetches.append(time.monotonic() - looked)
        except OSError as error:
            failed.append(f"{time.monotonic() - began:.1f} s: {error}")
        time.sleep(PAUSE)
    return {"lookups": lookups, "fetches": fetches, "failed": failed}


if __name__ == "__main__":
    print(json.dumps(live(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))))
