"""A cell's sockets: connections are accepted, names answered, and refused packets read, a few at a time and in turn."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache, partial
from ipaddress import IPv4Address, ip_address
from typing import TYPE_CHECKING, Any

from irons_local.cell.layout import SOCKETS
from irons_local.gateway.accept.cell_socket import CellSocket
from irons_local.gateway.accept.dns import MAX_QUERY, Wanted, answer
from irons_local.gateway.accept.nflog import Packet, packets
from irons_local.gateway.accept.questions import Questions
from irons_local.gateway.accept.waiting import Waiting
from irons_local.gateway.attempt.attempt import CROWDED, Attempt
from irons_local.gateway.budget import fairness
from irons_local.gateway.budget.descriptors import ACCEPTED
from irons_local.gateway.decide import internal_page
from irons_local.gateway.reach.records import MOST_BYTES
from irons_local.gateway.record.folding import Dropped
from irons_local.gateway.record.refusal import Refusal
from irons_local.gateway.shared.synthetic_names import NamesFullError
from irons_local.gateway.streams.splice import Turns
from irons_local.gateway.streams.stream import Wire
from irons_local.linux.tcp import tune
from irons_policy.causes import Cause
from irons_policy.hostnames import Host

if TYPE_CHECKING:
    from irons_local.gateway.shared.cell import Cell
    from irons_local.gateway.shared.context import Context

ACCEPTS = 4
FEW = 4
"""Connections of a cell up to which one that comes is begun before it is looked whether another one has come too."""
QUERIES = 4
QUESTIONS = 64
"""Questions for SRV and TXT records of one cell that may be answered at the same time."""
PACKETS = 32
PACKETS_PAUSE = 0.0025
OUT_OF_FILES_PAUSE = 0.1
DNS_CONNECTIONS = 64
"""Connections to a cell's name server that are served at once; others wait in the kernel's queue."""
DNS_TIMEOUT = 10.0
FLOODED = Dropped("datagrams and the like, refused faster than they could be read", Cause.CAP)
DNS_ANSWERS = 8
"""Answers on one TCP connection that are sent together, before its cell's time is looked at."""


class CellListeners:
    """Serves the sockets of one cell.

    Args:
        context: what all connections share.
        cell: whose they are.
        fds: descriptors in `SOCKETS`, which are the doors' from now on.
    """

    def __init__(self, context: Context, cell: Cell, fds: list[int]) -> None:
        self._context = context
        self._loop = context.loop
        self._cell = cell
        self._tasks: set[asyncio.Task[None]] = set()
        self._sockets = [CellSocket(fd) for fd in fds]
        self._readers: dict[socket.socket, Callable[[], None]] = {}
        self._paused: set[asyncio.TimerHandle] = set()
        self._turns = Turns(context.loop, context.crowded)
        self._owner = fairness.of(cell.name, cell.pace)
        self._questions = Questions(context, cell, context.nameservers)
        self._asking: set[asyncio.Task[None]] = set()
        self._dropped = 0
        self._listeners: list[socket.socket] = []
        self._dns_listeners: list[socket.socket] = []
        self._dns_held = False
        self._closed = False
        self._waiting = Waiting(context.loop, lambda: cell.full, self._leave, self._take)
        cell.freed = self._waiting.admit
        by_name = dict(zip(SOCKETS, self._sockets, strict=True))
        for name, sock in by_name.items():
            sock.setblocking(False)
            if name.startswith("dns_udp"):
                self._watch(sock, partial(self._queries, sock))
            elif name == "nflog":
                self._watch(sock, partial(self._packets, sock))
            elif sock.listens:
                # Sockets that an earlier keeper made are not tuned; what is accepted inherits it.
                tune(sock)
                named = name.startswith("dns")
                (self._dns_listeners if named else self._listeners).append(sock)
                enter = self._dns_connection if named else self._connection
                self._watch(sock, partial(self._accept, sock, enter))

    @property
    def fds(self) -> list[int]:
        """The descriptors in `SOCKETS`, still the doors' own."""
        return [sock.fileno() for sock in self._sockets]

    def close(self) -> None:
        """Serve them no more; connections already accepted live on."""
        self._closed = True
        self._waiting.close()
        for handle in self._paused:
            handle.cancel()
        for sock in self._readers:
            self._loop.remove_reader(sock)
        for task in (*self._tasks, *self._asking):
            task.cancel()
        for sock in self._sockets:
            sock.close()

    async def ended(self) -> None:
        """Wait, after `close`, until nothing that the doors began writes to the log any more."""
        if self._asking:
            await asyncio.wait(self._asking)

    def _watch(self, sock: socket.socket, ready: Callable[[], None]) -> None:
        self._readers[sock] = ready
        # All that comes of it is the cell's.
        self._owner.run(self._loop.add_reader, sock, ready)

    def _pause(self, sock: socket.socket, seconds: float) -> None:
        self._loop.remove_reader(sock)

        def resume() -> None:
            self._paused.discard(handle)
            held = self._waiting.holding if sock in self._listeners else self._dns_held
            if not held or sock.type != socket.SOCK_STREAM:
                self._loop.add_reader(sock, self._readers[sock])

        handle = self._loop.call_later(seconds, resume)
        self._paused.add(handle)

    def _accept(self, sock: socket.socket, enter: Callable[[socket.socket], None]) -> None:
        for _ in range(ACCEPTS):
            try:
                client, _ = sock.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}:
                    self._context.complain("out of descriptors or memory: connections wait")
                    self._pause(sock, OUT_OF_FILES_PAUSE)
                    return
                continue
            enter(client)
            if len(self._cell.live) <= FEW or self._cell.pace.over:
                return

    def _connection(self, client: socket.socket) -> None:
        cell = self._cell
        place, port = client.getsockname()[:2]
        where = _host_of(place)
        wire = Wire(self._loop, client)
        full = self._overrun()
        if full is not None:
            name = None if where.address is None else cell.names.name(where.address)
            mode = cell.policy.mode if cell.policy is not None else None
            refusal = Refusal(name or where.text, port, "tcp", mode, None, full, Cause.CAP)
            self._context.folder.refused(cell.name, refusal)
            wire.reset()
            return
        attempt = Attempt(self._context, cell, wire, where, port, self._turns)
        if attempt.inside:
            if cell.inside < cell.caps.inside:
                attempt.start()
            else:
                attempt.turn_away(f"{internal_page.NAME} has {cell.caps.inside} connections already")
        elif self._waiting or cell.full is not None:
            self._waiting.add(attempt, wire.age())
        else:
            attempt.start()

    def _leave(self) -> None:
        """Leave connections in the kernel's queue."""
        for sock in self._listeners:
            self._loop.remove_reader(sock)

    def _take(self) -> None:
        """Accept connections again."""
        for sock in self._listeners:
            self._watch(sock, self._readers[sock])

    def _overrun(self) -> str | None:
        cell = self._cell
        if not cell.bucket.take():
            return f"this sandbox makes more than {cell.caps.rate:.0f} connections a second"
        if not self._context.files.take(cell.files, ACCEPTED):
            return CROWDED
        return None

    def _address(self, name: str) -> IPv4Address:
        """The address that stands for a name; the first that there is no room for shows in the log."""
        try:
            return self._cell.names.address(name, self._covered)
        except NamesFullError as error:
            mode = self._cell.policy.mode if self._cell.policy is not None else None
            refusal = Refusal("*", 53, "dns", mode, None, str(error), Cause.CAP)
            self._context.folder.refused(self._cell.name, refusal)
            raise
        except OSError:
            # A name that cannot be kept is not given, and there is no room for a record of that either.
            self._context.folder.unwritten(self._cell.name)
            raise

    def _covered(self, name: str) -> bool:
        """True for a name that an allow rule covers; one for everything covers none in particular."""
        policy = self._cell.policy
        if policy is None:
            return False
        rules = policy.rules_for(Host(name))
        return policy.names(name) or any(
            rule.list == "allow" and rule.pattern.kind != "any" for rule in rules
        )

    def _named(self, name: str) -> bool:
        policy = self._cell.policy
        return policy is not None and policy.names(name)

    def _queries(self, sock: socket.socket) -> None:
        for _ in range(QUERIES):
            try:
                query, sender = sock.recvfrom(MAX_QUERY)
            except OSError:
                return
            question = self._questions.wants(query)
            if question is not None:
                self._ask(sock, sender, question)
                continue
            reply = answer(query, self._address, self._named)
            if reply:
                with suppress(OSError):
                    sock.sendto(reply, sender)
            if self._cell.pace.over:
                return

    def _ask(self, sock: socket.socket, sender: Any, question: Wanted) -> None:
        """Answer a question whose answer is found outside, in a task of its own."""
        if len(self._asking) >= QUESTIONS:
            return  # as a name server that is overloaded does

        async def ask() -> None:
            reply = await self._questions.answer(question, question.room)
            with suppress(OSError):
                sock.sendto(reply, sender)

        task = self._loop.create_task(ask())
        self._asking.add(task)
        task.add_done_callback(self._asking.discard)

    def _dns_connection(self, client: socket.socket) -> None:
        if not self._context.files.take(self._cell.files, ACCEPTED):
            client.close()
            return
        wire = Wire(self._loop, client)
        wire.narrow()
        task = self._loop.create_task(self._dns_tcp(wire))
        self._tasks.add(task)
        task.add_done_callback(partial(self._dns_ended, wire))
        if len(self._tasks) >= DNS_CONNECTIONS and not self._dns_held:
            self._dns_held = True
            for sock in self._dns_listeners:
                self._loop.remove_reader(sock)

    def _dns_ended(self, client: Wire, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        client.close()
        self._context.files.give(self._cell.files, ACCEPTED)
        if self._dns_held and not self._closed and len(self._tasks) < DNS_CONNECTIONS:
            self._dns_held = False
            for sock in self._dns_listeners:
                self._watch(sock, self._readers[sock])

    async def _dns_tcp(self, client: Wire) -> None:
        """Queries with their length in front (RFC 7766)."""
        data = bytearray()
        try:
            while True:
                async with asyncio.timeout(DNS_TIMEOUT):
                    while not _whole(data):
                        more = await client.recv(MAX_QUERY)
                        if not more:
                            await client.delivered()
                            return
                        data += more
                    question = self._asked(data)
                    if question is not None:
                        replies, sound = _framed(await self._questions.answer(question, MOST_BYTES)), True
                    else:
                        replies, sound = self._replies(data)
                    await client.send(replies)
                    # One that asks now and then does not keep for ever what others of its sandbox wait for.
                    if not sound or (self._dns_held and not _whole(data)):
                        await client.delivered()
                        return
        except (OSError, TimeoutError):
            client.abandon()

    def _asked(self, data: bytearray) -> Wanted | None:
        """Take the first query from `data` where it is a question whose answer is found outside."""
        size = int.from_bytes(data[:2], "big")
        question = self._questions.wants(data[2 : 2 + size])
        if question is not None:
            del data[: 2 + size]
        return question

    def _replies(self, data: bytearray) -> tuple[bytes, bool]:
        """Take the first queries from `data`; their answers, and False where one deserves none."""
        replies: list[bytes] = []
        while len(replies) < DNS_ANSWERS and _whole(data):
            size = int.from_bytes(data[:2], "big")
            query = bytes(data[2 : 2 + size])
            if replies and self._questions.wants(query) is not None:
                break
            reply = answer(query, self._address, self._named)
            del data[: 2 + size]
            if not reply:
                return b"".join(replies), False
            replies.append(_framed(reply))
        return b"".join(replies), True

    def _packets(self, sock: CellSocket) -> None:
        """Read some of what the kernel refused, then leave the loop to others for a moment."""
        for _ in range(PACKETS):
            try:
                data = sock.recv(65_536)
            except BlockingIOError:
                break
            except OSError:
                continue  # the kernel could not report them all: it counts
            for packet in packets(data):
                self._refused(packet)
            if self._cell.pace.over:
                break
        self._count_missing(sock)
        self._pause(sock, PACKETS_PAUSE)

    def _count_missing(self, sock: CellSocket) -> None:
        """Notice reports for which the socket had no room, also while there was no gateway."""
        drops = sock.drops
        if drops == self._dropped:
            return
        self._dropped = drops
        missing = self._cell.missing(drops)
        if missing:
            self._context.folder.dropped(self._cell.name, missing, FLOODED)
            self._cell.recorded(drops)

    def _refused(self, packet: Packet) -> None:
        cell = self._cell
        host = cell.names.name(packet.address) or str(packet.address)
        mode = cell.policy.mode if cell.policy is not None else None
        what = {"udp": "UDP", "icmp": "ICMP"}.get(packet.protocol, f"protocol {packet.protocol}")
        reason = f"{what} is never let through"
        refusal = Refusal(host, packet.port, packet.protocol, mode, None, reason, Cause.NEVER)
        self._context.folder.refused(cell.name, refusal)
        self._context.folder.remember(cell.name, refusal, None)


def _whole(data: bytearray) -> bool:
    """True where the first query in it is whole."""
    # One that is too long deserves no answer, so the rest of it is not waited for.
    return len(data) >= 2 and len(data) >= 2 + min(int.from_bytes(data[:2], "big"), MAX_QUERY + 1)


def _framed(reply: bytes) -> bytes:
    return len(reply).to_bytes(2, "big") + reply


@lru_cache(maxsize=1024)
def _host_of(where: str) -> Host:
    """Read the address that a program connected to; a sandbox connects to the same few again and again."""
    address = ip_address(where.partition("%")[0])
    address = getattr(address, "ipv4_mapped", None) or address
    return Host(str(address), address)
