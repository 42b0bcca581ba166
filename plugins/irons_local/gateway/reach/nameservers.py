"""The host's name servers, as resolv.conf(5) names them, asked for records that `getaddrinfo(3)` does not give."""

from __future__ import annotations

import asyncio
import os
import socket
from ipaddress import IPv4Address, ip_address
from pathlib import Path
from typing import NamedTuple

from irons_local.gateway.budget.watch import FairLoop
from irons_local.gateway.reach.dial import DialError, dial
from irons_local.gateway.reach.records import MOST_BYTES, Answer, BadAnswerError, Found, question, read_answer
from irons_local.gateway.reach.reread import Reread
from irons_local.gateway.streams.stream import Wire
from irons_policy.addresses import Address
from irons_policy.decide import Kind

PORT = 53
TIMEOUT = 8.0
"""Seconds for one question, however many servers are asked."""

_MOST_SERVERS = 3
_MOST_FILE = 64 * 1024
_MOST_WAIT = 3
_MOST_ATTEMPTS = 3
_MOST_STRAY = 16


class UnansweredError(Exception):
    """No name server answered; the message says why, for people."""


class ResolvConf(NamedTuple):
    """What matters of resolv.conf(5).

    Attributes:
        servers: the name servers, in order.
        wait: seconds to wait for each.
        attempts: how often all are asked.
        tcp: ask by TCP alone.
    """

    servers: tuple[Address, ...] = (IPv4Address("127.0.0.1"),)
    wait: int = _MOST_WAIT
    attempts: int = 2
    tcp: bool = False


def parse_resolv_conf(data: bytes) -> ResolvConf:
    """Read a resolv.conf; what is malformed in it is left out, as glibc does."""
    servers: list[Address] = []
    options: list[str] = []
    for line in data[:_MOST_FILE].decode("ascii", "replace").splitlines():
        keyword, *words = line.partition("#")[0].partition(";")[0].split() or [""]
        if keyword == "nameserver" and words and len(servers) < _MOST_SERVERS:
            try:
                servers.append(ip_address(words[0]))
            except ValueError:
                continue
        elif keyword == "options":
            options += words
    plain = ResolvConf()
    return ResolvConf(
        tuple(servers) or plain.servers,
        _option(options, "timeout", plain.wait, _MOST_WAIT),
        _option(options, "attempts", plain.attempts, _MOST_ATTEMPTS),
        "use-vc" in options,
    )


def _option(options: list[str], name: str, default: int, most: int) -> int:
    found = [word.partition(":")[2] for word in options if word.startswith(f"{name}:")]
    if not found or not found[-1].isdecimal():
        return default
    return max(1, min(int(found[-1][:4]), most))


class NameServers:
    """Asks the host's name servers, one after the other.

    Args:
        loop: the running loop.
        path: of resolv.conf, read again when it changes.
        port: where the servers listen.
    """

    def __init__(self, loop: FairLoop, path: Path = Path("/etc/resolv.conf"), port: int = PORT) -> None:
        self._loop = loop
        self._conf = Reread(path, parse_resolv_conf, _MOST_FILE)
        self._port = port

    async def ask(self, name: str, kind: Kind) -> tuple[Found, ...]:
        """The records of a canonical name; none where it has none.

        Raises:
            UnansweredError: no server answered in time.
        """
        conf = self._conf()
        why = "no answer in time"
        try:
            async with asyncio.timeout(TIMEOUT):
                for _ in range(conf.attempts):
                    for server in conf.servers:
                        try:
                            answer = await self._exchange(server, conf, name, kind)
                        except (OSError, TimeoutError, DialError, BadAnswerError) as error:
                            why = _say(error)
                            continue
                        if answer.settled:
                            return answer.records
                        why = f"the name server failed (code {answer.rcode})"
        except TimeoutError:
            pass
        raise UnansweredError(why)

    async def _exchange(self, server: Address, conf: ResolvConf, name: str, kind: Kind) -> Answer:
        identity = int.from_bytes(os.urandom(2), "big")
        message = question(identity, name, kind)
        if not conf.tcp:
            answer = await self._by_udp(server, conf.wait, message, identity, name, kind)
            if not answer.truncated:
                return answer
        async with asyncio.timeout(conf.wait):
            return await self._by_tcp(server, message, identity, name, kind)

    async def _by_udp(
        self, server: Address, wait: int, message: bytes, identity: int, name: str, kind: Kind
    ) -> Answer:
        family = socket.AF_INET if server.version == 4 else socket.AF_INET6
        # A port of the kernel's choosing, and connected, so that no one else's datagram comes in.
        wire = Wire(
            self._loop, socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        )
        try:
            wire.sock.connect((str(server), self._port))
            await wire.send(message)
            async with asyncio.timeout(wait):
                for _ in range(_MOST_STRAY):
                    data = await wire.recv(MOST_BYTES + 1)
                    if data[:2] == message[:2]:
                        return read_answer(data, identity, name, kind)
        finally:
            wire.close()
        raise BadAnswerError("only answers to other questions came")

    async def _by_tcp(self, server: Address, message: bytes, identity: int, name: str, kind: Kind) -> Answer:
        wire = await dial(self._loop, server, self._port)
        try:
            await wire.send(len(message).to_bytes(2, "big") + message)
            size = int.from_bytes(await _exactly(wire, 2), "big")
            if size > MOST_BYTES:
                raise BadAnswerError("the answer is too large")
            return read_answer(await _exactly(wire, size), identity, name, kind)
        finally:
            wire.close()


def _say(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.lower() or "no answer in time"


async def _exactly(wire: Wire, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = await wire.recv(size - len(data))
        if not more:
            raise BadAnswerError("the name server closed")
        data += more
    return data
