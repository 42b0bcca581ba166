"""The servers that the gateway benchmark talks to, run in the lab's internet: one sends much, one answers quickly.

`python far_end.py ADDRESS BULK_PORT BULK_BYTES QUICK_PORT [KEPT]` serves until its standard input ends. Both wait for the client's first bytes. The
first then sends BULK_BYTES, a ServerHello and the rest straight from memory by sendfile(2), the second a ServerHello; both close. KEPT is how much
of a download the kernel keeps here for a client that does not read; as much as it likes where it is left out.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading

CHUNK = 64 << 20
_SAID = b"\x02\x00\x00\x26\x03\x03" + bytes(32) + b"\x00\x13\x01\x00"
SERVER_HELLO = b"\x16\x03\x03" + len(_SAID).to_bytes(2, "big") + _SAID
"""How a TLS server's answer begins (RFC 8446, section 4.1.3); a gateway may look at it before it lets more pass."""


def serve_bulk(listener: socket.socket, size: int) -> None:
    """Send `size` bytes to everyone, a thread each."""
    source = os.memfd_create("zeros")
    for _ in range(CHUNK >> 20):
        os.write(source, bytes(1 << 20))
    while True:
        client, _ = listener.accept()
        threading.Thread(target=_send, args=(client, source, size), daemon=True).start()


def _send(client: socket.socket, source: int, size: int) -> None:
    left = size - len(SERVER_HELLO)
    with client, contextlib.suppress(ConnectionError):
        client.recv(4096)
        client.send(SERVER_HELLO)
        while left > 0:
            left -= os.sendfile(client.fileno(), source, 0, min(CHUNK, left))


def serve_quick(listener: socket.socket) -> None:
    """Answer everyone's first words with four bytes, many at once."""
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    while True:
        for fd, _ in poll.poll():
            if fd != listener.fileno():
                with clients.pop(fd) as client, contextlib.suppress(OSError):
                    if client.recv(4096):
                        client.send(SERVER_HELLO)
                continue
            with contextlib.suppress(BlockingIOError):
                while True:
                    client, _ = listener.accept()
                    clients[client.fileno()] = client
                    poll.register(client, select.EPOLLIN)


def listen(address: str, port: int) -> socket.socket:
    """A listening socket with room for a crowd."""
    return socket.create_server((address, port), backlog=4096)


def main() -> None:
    """Serve until standard input ends."""
    address, bulk_port, size, quick_port, *kept = sys.argv[1:]
    bulk, quick = listen(address, int(bulk_port)), listen(address, int(quick_port))
    for most in kept:
        # Those that it accepts inherit this (socket(7)).
        bulk.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, int(most))
    threading.Thread(target=serve_bulk, args=(bulk, int(size)), daemon=True).start()
    if os.fork() == 0:
        # A process of its own, so that neither waits for the other's interpreter; it ends with its parent's input.
        threading.Thread(target=serve_quick, args=(quick,), daemon=True).start()
        sys.stdin.read()
        os._exit(0)
    print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
