"""The servers next to a flood, run in the lab's internet: one reads everything, another answers quickly.

`python sink.py ADDRESS SINK_PORT QUICK_PORT` serves until its standard input ends, each in a process of its own. The sink
agrees to every WebSocket, begins HTTP/2 where its client does, and says nothing else.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import sys
import threading

AGREED = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
PREFACE, SETTINGS = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0\0\0\4\0\0\0\0\0"
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\ndone\n"


def serve(listener: socket.socket, *, quick: bool) -> None:
    """Serve everyone: answer the first bytes and close, or take bytes for ever."""
    listener.setblocking(False)
    poll = select.epoll()
    poll.register(listener, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    space = bytearray(1 << 20)
    while True:
        for fd, _ in poll.poll():
            if fd == listener.fileno():
                with contextlib.suppress(BlockingIOError):
                    while True:
                        client, _ = listener.accept()
                        clients[client.fileno()] = client
                        poll.register(client, select.EPOLLIN)
                continue
            client = clients[fd]
            try:
                got = client.recv_into(space)
                if got and quick:
                    client.sendall(ANSWER)
                elif b"Upgrade: websocket" in space[: min(got, 1024)]:
                    client.sendall(AGREED)
                elif got >= len(PREFACE) and space.startswith(PREFACE):
                    client.sendall(SETTINGS)
            except OSError:
                got = 0
            if quick or not got:
                clients.pop(fd).close()


def main() -> None:
    """Serve until standard input ends."""
    address, sink_port, quick_port = sys.argv[1:]
    sink = socket.create_server((address, int(sink_port)), backlog=4096)
    quick = socket.create_server((address, int(quick_port)), backlog=4096)
    listener, is_quick = (sink, False) if os.fork() == 0 else (quick, True)
    threading.Thread(target=serve, args=(listener,), kwargs={"quick": is_quick}, daemon=True).start()
    if is_quick:
        print("ready", flush=True)
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
