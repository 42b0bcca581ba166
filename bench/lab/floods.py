"""What a hostile program in a sandbox sends to keep the gateway busy, run in a network namespace: in a sandbox's cell.

`python floods.py FLOOD ADDRESS PORT NAME COUNT` keeps COUNT connections full until killed; one that ends is made again.
It says when all of them are at work. Of the floods, `dns` asks the cell's name server over TCP; the others speak to
ADDRESS PORT, which stands for NAME: mostly HTTP whose pieces are small and cost the gateway more than they cost here.
`connects`, `udp` and `asks` have COUNT threads that open connections and close them, send datagrams to ever other ports,
and ask for ever other names.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import select
import socket
import struct
import sys
import threading
from collections.abc import Iterator

NAME_SERVER = ("100.64.0.1", 53)
MUCH = 1 << 18
"""Bytes that are written at a time, about."""
STUCK = 60.0


def _filled(piece: bytes) -> bytes:
    return piece * max(1, MUCH // len(piece))


def dns() -> tuple[bytes, bytes]:
    """Questions over TCP, many in one write."""
    labels = b"".join(bytes([len(label)]) + label for label in (b"web", b"example", b"test"))
    question = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", 1, 1)
    return b"", _filled(len(question).to_bytes(2, "big") + question)


def chunks(host: str) -> tuple[bytes, bytes]:
    """One request whose body comes in chunks of one byte."""
    head = f"POST /chunks HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    return head, _filled(b"1\r\nx\r\n")


def gets(host: str) -> tuple[bytes, bytes]:
    """Small requests, one right after the other."""
    return b"", _filled(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())


def blanks(host: str) -> tuple[bytes, bytes]:
    """Small requests after as many empty lines as may come before one."""
    return b"", _filled(b"\r\n" * 8 + f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())


def heads(host: str) -> tuple[bytes, bytes]:
    """Requests with as many header fields as may be."""
    fields = "".join(f"X-{number}: {number}\r\n" for number in range(250))
    return b"", _filled(f"GET / HTTP/1.1\r\nHost: {host}\r\n{fields}\r\n".encode())


def trailers(host: str) -> tuple[bytes, bytes]:
    """Requests with as many trailers as may be."""
    fields = "".join(f"X-{number}: {number}\r\n" for number in range(250))
    head = f"POST / HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n"
    return b"", _filled(f"{head}1\r\nx\r\n0\r\n{fields}\r\n".encode())


def upload(host: str) -> tuple[bytes, bytes]:
    """One upload of counted length that hardly ends."""
    return f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: {10**14}\r\n\r\n".encode(), bytes(MUCH)


def opaque(_: str) -> tuple[bytes, bytes]:
    """What is not a protocol that the gateway knows."""
    return b"\0\1\2\3 no protocol at all\n", _filled(bytes(range(256)).replace(b"\n", b""))


def websocket(host: str) -> tuple[bytes, bytes]:
    """A WebSocket with one small message after the other."""
    head = f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    return head.encode(), b"\x81\x84mask1234"


def pings(_: str) -> tuple[bytes, bytes]:
    """HTTP/2 in the clear (RFC 9113), and nothing in it but PING frames."""
    settings = b"\0\0\0\4\0\0\0\0\0"
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings, _filled(b"\0\0\x08\6\0\0\0\0\0pingpong")


def _frame(kind: int, flags: int, payload: bytes) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + (1).to_bytes(4, "big") + payload


def _http2(block: bytes) -> bytes:
    return b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)) + _frame(1, 4, block)


def frames(host: str) -> tuple[bytes, bytes]:
    """A request of HTTP/2 whose body comes in frames of one byte."""
    return _http2(b"\x83\x86\x84\x01" + bytes([len(host)]) + host.encode()), _filled(_frame(0, 0, b"x"))


def blocks(_: str) -> tuple[bytes, bytes]:
    """Header blocks of HTTP/2 as large as may be, of the smallest fields."""
    most = b"\0\1a\1b" * 6_500
    return _http2(most), _filled(_frame(1, 4, most))


FLOODS = {
    each.__name__: each
    for each in (chunks, gets, blanks, heads, trailers, upload, opaque, websocket, pings, frames, blocks)
}


def connects(where: tuple[str, int]) -> None:
    """Open a connection and close it."""
    with contextlib.suppress(OSError), socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.connect(where)


def udp(where: tuple[str, int], sock: socket.socket, number: int) -> None:
    """Send a datagram to another port each time."""
    with contextlib.suppress(OSError):
        sock.sendto(b"x", (where[0], 1024 + number % 60_000))


def asks(sock: socket.socket, number: int) -> None:
    """Ask for another name each time."""
    label = b"x%d" % number
    query = struct.pack(">HHHHHH", 7, 0x100, 1, 0, 0, 0) + bytes([len(label)]) + label + b"\5flood\4test\0"
    with contextlib.suppress(OSError):
        sock.sendto(query + struct.pack(">HH", 1, 1), NAME_SERVER)


def storm(name: str, where: tuple[str, int]) -> None:
    """Do one of these until killed."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        for number in itertools.count():
            if name == "connects":
                connects(where)
            elif name == "udp":
                udp(where, sock, number)
            else:
                asks(sock, number)


STORMS = ("connects", "udp", "asks")


class _Hose:
    """One connection that is kept full."""

    def __init__(self, where: tuple[str, int], first: bytes, then: bytes) -> None:
        self.sock = socket.socket()
        self.sock.setblocking(False)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.sock.connect_ex(where) not in {0, errno.EINPROGRESS}:
            raise SystemExit("there are no ports left")
        self._parts: Iterator[bytes] = itertools.chain((first,) if first else (), itertools.repeat(then))
        self._rest = memoryview(b"")

    def send(self) -> None:
        """Send what there is room for, a few parts at most."""
        for _ in range(16):
            if not self._rest:
                self._rest = memoryview(next(self._parts))
            self._rest = self._rest[self.sock.send(self._rest) :]


def flood(where: tuple[str, int], first: bytes, then: bytes, count: int) -> None:
    """Keep so many connections full until killed."""
    poll = select.epoll()
    running: dict[int, _Hose] = {}
    heard: set[int] = set()
    ready = False
    while True:
        while len(running) < count:
            hose = _Hose(where, first, then)
            running[hose.sock.fileno()] = hose
            poll.register(hose.sock, select.EPOLLIN | select.EPOLLOUT)
        for fd, what in poll.poll(STUCK):
            hose = running[fd]
            try:
                if what & select.EPOLLIN and not hose.sock.recv(MUCH):
                    raise ConnectionResetError
                if what & select.EPOLLOUT:
                    heard.add(fd)
                    hose.send()
            except BlockingIOError:
                continue
            except OSError:
                with contextlib.suppress(OSError):
                    poll.unregister(fd)
                running.pop(fd).sock.close()
        if not ready and len(heard) >= count:
            ready = True
            print("at work", flush=True)


def main() -> None:
    """Flood until killed."""
    name, address, port, host, count = sys.argv[1:]
    where = NAME_SERVER if name == "dns" else (address, int(port))
    if name in STORMS:
        threads = [threading.Thread(target=storm, args=(name, where), daemon=True) for _ in range(int(count))]
        for thread in threads:
            thread.start()
        print("at work", flush=True)
        threads[0].join()
    first, then = dns() if name == "dns" else FLOODS[name](f"{host}:{port}")
    flood(where, first, then, int(count))


if __name__ == "__main__":
    main()
