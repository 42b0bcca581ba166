"""The client of the gateway benchmark, run in a network namespace: in a sandbox's cell, or behind a router.

`python near_end.py WAY ADDRESS PORT ...` prints one JSON object. Every connection begins with a real ClientHello for
a name, as the gateway meets it in life.

    bulk ADDRESS PORT NAME                     one connection, read to its end: {"bytes", "seconds"}
    turns ADDRESS PORT NAME COUNT              one connection after the other: {"seconds": [each until its first byte]}
    crowd ADDRESS PORT NAME COUNT AT_ONCE      many at once: {"count", "failed", "seconds", "began", "ended"}
    together ADDRESS PORT NAME COUNT AT_ONCE   crowd, begun once a line comes on standard input; says when it is ready
    spin ADDRESS PORT NAME                     compute until killed, reaching no one; says that it is at work
    busy ADDRESS PORT NAME AT_ONCE             as crowd, until killed; says that it is at work
    dribble ADDRESS PORT NAME COUNT            keep that many connections, and send each a byte of a request head at a
                                               time, until killed; says when all of them are at work
    tries PORT BURST                           one connection to each [name, address] of the JSON on standard input, in
                                               bursts with random pauses: {name: when it began, by `time.monotonic`}
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import json
import random
import select
import socket
import ssl
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

BUFFER = 1 << 20
ANSWER = 4096
STUCK = 30.0
ENDLESS = 10**12
PAUSES = (0.01, 0.1)
_CLIENT = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def hello(name: str) -> bytes:
    """A ClientHello that asks for a name, as OpenSSL sends it."""
    outgoing = ssl.MemoryBIO()
    tls = _CLIENT.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        tls.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError


def bulk(where: tuple[str, int], words: bytes) -> dict[str, Any]:
    """Read one answer to its end; the clock runs from its first byte."""
    buffer = bytearray(BUFFER)
    with socket.create_connection(where, timeout=STUCK) as server:
        server.sendall(words)
        total = server.recv_into(buffer)
        began = time.perf_counter()
        while got := server.recv_into(buffer):
            total += got
        return {"bytes": total, "seconds": time.perf_counter() - began}


def turns(where: tuple[str, int], words: bytes, count: int) -> dict[str, Any]:
    """Connect again and again, and time each until the first byte of its answer."""
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        with socket.create_connection(where, timeout=STUCK) as server:
            server.sendall(words)
            if not server.recv(ANSWER):
                raise SystemExit("a connection was refused")
            taken.append(time.perf_counter() - began)
            server.recv(ANSWER)
    return {"seconds": taken}


def crowd(where: tuple[str, int], words: bytes, count: int, at_once: int) -> dict[str, Any]:
    """Keep `at_once` connections under way until `count` have been answered and closed."""
    poll = select.epoll()
    running: dict[int, socket.socket] = {}
    answered: set[int] = set()
    begun = done = failed = 0
    began = time.perf_counter()
    while done < count:
        while begun < count and len(running) < at_once:
            client = socket.socket()
            client.setblocking(False)
            if client.connect_ex(where) not in {0, errno.EINPROGRESS}:
                raise SystemExit("there are no ports left")
            running[client.fileno()] = client
            poll.register(client, select.EPOLLOUT)
            begun += 1
        for fd, what in poll.poll(STUCK):
            client = running[fd]
            try:
                if what & select.EPOLLOUT:
                    client.send(words)
                    poll.modify(client, select.EPOLLIN)
                    continue
                if client.recv(ANSWER):
                    answered.add(fd)
                    continue
            except OSError:
                answered.discard(fd)
            failed += fd not in answered
            answered.discard(fd)
            running.pop(fd).close()
            done += 1
    ended = time.perf_counter()
    return {"count": done, "failed": failed, "seconds": ended - began, "began": began, "ended": ended}


def spin() -> None:
    """Compute until killed."""
    print("at work", flush=True)
    while True:
        pass


def dribble(where: tuple[str, int], count: int) -> None:
    """Keep connections whose request heads never end, a byte at a time, until killed; one that ends is opened again."""
    poll = select.epoll()
    running: dict[int, tuple[socket.socket, Iterator[int]]] = {}
    ready = False
    while True:
        while len(running) < count:
            client = socket.socket()
            client.setblocking(False)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if client.connect_ex(where) not in {0, errno.EINPROGRESS}:
                raise SystemExit("there are no ports left")
            running[client.fileno()] = client, itertools.chain(b"GET / HTTP/1.1\r\nX: ", itertools.repeat(97))
            poll.register(client, select.EPOLLOUT)
        for fd, _ in poll.poll(STUCK):
            client, words = running[fd]
            try:
                client.send(bytes([next(words)]))
            except BlockingIOError:
                continue
            except OSError:
                running.pop(fd)[0].close()
        if not ready:
            ready = True
            print("at work", flush=True)


def tries(where: Sequence[tuple[str, str]], port: int, burst: int) -> dict[str, float]:
    """Connect to each address for its name, say so, and leave."""
    chance = random.Random(1)
    words = {name: hello(name) for name, _ in where}
    began: dict[str, float] = {}
    for at, (name, address) in enumerate(where):
        if at and at % burst == 0:
            time.sleep(chance.uniform(*PAUSES) * burst)
        began[name] = time.monotonic()
        with contextlib.suppress(OSError), socket.create_connection((address, port), timeout=STUCK) as client:
            client.send(words[name])
    return began


def main() -> None:
    """Do what was asked and print what it took."""
    if sys.argv[1] == "tries":
        print(json.dumps(tries(json.load(sys.stdin), int(sys.argv[2]), int(sys.argv[3]))))
        return
    way, address, port, name, *numbers = sys.argv[1:]
    where, words = (address, int(port)), hello(name)
    if way == "spin":
        spin()
    elif way == "busy":
        print("at work", flush=True)
        crowd(where, words, ENDLESS, int(numbers[0]))
    elif way == "dribble":
        dribble(where, int(numbers[0]))
    elif way == "bulk":
        print(json.dumps(bulk(where, words)))
    elif way == "turns":
        print(json.dumps(turns(where, words, int(numbers[0]))))
    else:
        if way == "together":
            print("ready", flush=True)
            sys.stdin.readline()
        print(json.dumps(crowd(where, words, int(numbers[0]), int(numbers[1]))))


if __name__ == "__main__":
    main()
