"""A gateway under test: the lab's host and internet, a cell without a sandbox in it, and the test as its keeper.

Sockets for a test's programs are made inside the cell by a thread that enters it; what they meet is what a
sandbox would meet.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from dnslib import DNSRecord
from tests.e2e.internet import NAME_SERVER
from tests.e2e.lab import HOLD, Lab, eventually

from irons_local.ipc.link import Link

ROOT = str(Path(__file__).parents[3])
CELL = "sb_00000000000000aa"
GATEWAY = "100.64.0.1"
BANNER = b"220 mail.example.test ESMTP\r\n"
"""What the server that speaks first says."""
MAKER = """
import json, socket, sys
from irons_local.cell import layout, network as cellnet, nft, sockets
ports = layout.Ports()
cellnet.configure()
nft.apply_rules(ports)
made = sockets.make(ports)
socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b"x"], [each.fileno() for each in made])
"""
TRIES = 20
"""How often something is tried that must be quick."""
_NEWNET = 0x40000000


class CellNet:
    """A cell's network and its sockets, held by one process that does nothing."""

    def __init__(self) -> None:
        self.holder = subprocess.Popen(
            ["unshare", "--net", sys.executable, "-c", HOLD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.holder.stdout is not None
        self.pid = int(self.holder.stdout.readline())
        near, far = socket.socketpair()
        enter = ["nsenter", "-t", str(self.pid), "-n", sys.executable, "-c", MAKER, str(far.fileno())]
        subprocess.run(enter, pass_fds=[far.fileno()], check=True, timeout=100)
        _, self.fds, _, _ = socket.recv_fds(near, 1, 16)
        near.close()
        far.close()

    def socket(
        self, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, proto: int = 0
    ) -> socket.socket:
        """A socket inside."""
        return socket_in(self.pid, family, kind, proto)

    def close(self) -> None:
        """Take the cell down."""
        for fd in self.fds:
            os.close(fd)
        assert self.holder.stdin is not None
        assert self.holder.stdout is not None
        self.holder.stdin.close()
        self.holder.stdout.close()
        self.holder.kill()
        self.holder.wait()


def socket_in(
    pid: int, family: int = socket.AF_INET, kind: int = socket.SOCK_STREAM, proto: int = 0
) -> socket.socket:
    """A socket in the network of a process."""
    made: list[socket.socket] = []

    def make() -> None:
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            assert ctypes.CDLL(None, use_errno=True).setns(fd, _NEWNET) == 0
            made.append(socket.socket(family, kind, proto))
        finally:
            os.close(fd)

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    made[0].settimeout(60)
    return made[0]


class Program:
    """A connected TCP socket of a program in the cell; without an address, one that is connected already."""

    def __init__(self, sock: socket.socket, address: str = "", port: int = 0) -> None:
        self.sock = sock
        self.gone = False
        self.broken = False
        if not address:
            sock.settimeout(60)
            return
        try:
            sock.connect((address, port))
        except ConnectionResetError:
            # It was accepted and refused before the system call was over.
            self.gone = True
        except BaseException:
            sock.close()
            raise

    def send(self, data: bytes) -> Program:
        """Send bytes; a reset in between shows in what is read."""
        try:
            if not self.gone:
                self.sock.sendall(data)
        except ConnectionError:
            # The kernel reports a reset once, and this was it.
            self.broken = True
        return self

    def read(self, size: int) -> bytes:
        """Exactly so many bytes, or fewer at the end."""
        data = b""
        while len(data) < size:
            more = self.sock.recv(size - len(data))
            if not more:
                break
            data += more
        return data

    def until(self, end: bytes) -> bytes:
        """All up to and including `end`."""
        data = b""
        while not data.endswith(end):
            more = self.sock.recv(1)
            if not more:
                break
            data += more
        return data

    def rest(self) -> bytes:
        """All until the end; `b"RESET"` where the end is a reset."""
        data = b""
        if self.gone:
            return b"RESET"
        try:
            while more := self.sock.recv(65_536):
                data += more
        except ConnectionError:
            return data + b"RESET"
        return data + b"RESET" if self.broken else data

    def finish(self) -> Program:
        """Close this side."""
        self.sock.shutdown(socket.SHUT_WR)
        return self

    def close(self) -> None:
        """Close it."""
        self.sock.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Stand:
    """The gateway process, its keeper's and its control plane's links, and one cell."""

    def __init__(self, lab: Lab, home: Path, net: CellNet) -> None:
        self.lab = lab
        self.home = home
        self.net = net
        self.process: subprocess.Popen[bytes] | None = None
        self.keeper: Link | None = None
        self.server: Link | None = None
        self._before = 0
        self._recorded = 0
        self.mark()

    def mark(self) -> None:
        """Count arrivals and records from zero again."""
        self._before = len(self.lab.arrivals())
        self._recorded = len(self._all_records())

    def settle(self) -> None:
        """End what an earlier test has left: its connections, what is being folded, and what is on its way to the lab."""
        assert self.keeper is not None
        # The gateway answers once the last record is written.
        self.keeper.request("detach", cell=CELL)
        self.attach()
        # The host's resolver asks again for what no one waits for any more.
        eventually(lambda: not self.ask("stats")["resolving"], what="the host's resolver to be done")
        # The lab's servers are one loop: what came before a question is noted before the answer to the next but one.
        with socket_in(self.lab.host, kind=socket.SOCK_DGRAM) as sock:
            for _ in range(3):
                sock.sendto(DNSRecord.question("settled.example.test").pack(), (NAME_SERVER, 53))
                sock.recv(4096)

    def arrivals(self) -> list[dict[str, Any]]:
        """What reached the internet since the mark."""
        return self.lab.arrivals()[self._before :]

    def leaked(self, text: str) -> list[dict[str, Any]]:
        """What of it holds `text`."""
        return [each for each in self.arrivals() if text in json.dumps(each)]

    def start(self, *, confined: bool = False, files: str = "", patient: bool = False) -> None:
        """Start the gateway, and give it the cell.

        Args:
            confined: as root's keeper does it.
            files: how many descriptors it may have, `SOFT:HARD`.
            patient: it gives up nothing that is not finished.
        """
        near, far = socket.socketpair()
        self.process = subprocess.Popen(
            # Entering a mount namespace leads to its root, so the way back is the first step.
            [
                *self.lab.enter(),
                *(["prlimit", f"--nofile={files}"] if files else []),
                "env",
                "-C",
                str(self.home),
                sys.executable,
                "-m",
                *(["irons_local.forkserver.confine"] if confined else []),
                "tests.local.gateway.patient" if patient else "irons_local.gateway",
            ],
            env={**os.environ, "IRONS_LINK": str(far.fileno()), **({"PYTHONPATH": ROOT} if patient else {})},
            pass_fds=[far.fileno()],
        )
        far.close()
        near.settimeout(60)
        self.keeper = Link(near)
        one, other = socket.socketpair()
        self.keeper.send({"op": "peer"}, [other.fileno()])
        other.close()
        one.settimeout(60)
        self.server = Link(one)
        self.attach()

    def attach(self, cell: str = CELL, net: CellNet | None = None) -> None:
        """Give the gateway a cell."""
        assert self.keeper is not None
        self.keeper.request("attach", (net or self.net).fds, cell=cell, ports={"tcp": 15001, "dns": 53})

    def ask(self, op: str, **fields: Any) -> dict[str, Any]:
        """A request of the control plane's."""
        assert self.server is not None
        return self.server.request(op, **fields).body

    def policy(self, mode: str = "deny", allow: Sequence[str | dict[str, Any]] = (), **more: Any) -> int:
        """Apply a policy; return how many connections it cut."""
        cell = more.pop("cell", CELL)
        sandbox = {"id": cell, "name": "box"}
        if "connections" in more:
            sandbox["connections"] = more.pop("connections")
        answer = self.ask("policy", cell=cell, sandbox=sandbox, policy=policy(mode, allow, **more))
        return int(answer["cut"])

    def answer(self, number: int) -> dict[str, Any]:
        """The answer to a request of the control plane's that was sent by hand."""
        assert self.server is not None
        while (body := self.server.recv().body).get("id") != number:
            pass
        answer: dict[str, Any] = body["ok"]
        return answer

    @contextmanager
    def still(self) -> Iterator[None]:
        """Hold the gateway where it is."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/stat")
        self.process.send_signal(signal.SIGSTOP)
        try:
            eventually(lambda: status.read_text().rpartition(") ")[2].startswith("T"))
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it as hard as can be."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        self._unlink()

    def stop(self) -> None:
        """End it as its keeper would."""
        self._unlink()
        if self.process is not None:
            try:
                self.process.wait(60)
            finally:
                self.process.kill()
                self.process.wait()

    def _unlink(self) -> None:
        for link in (self.keeper, self.server):
            if link is not None:
                link.close()
        self.keeper = self.server = None

    def resolve(self, name: str) -> str:
        """The synthetic address of a name, asked of the cell's name server."""
        answer = self.dns(name)
        assert answer.rr, f"{name} has no address"
        return str(answer.rr[0].rdata)

    def dns(self, name: str, kind: str = "A") -> DNSRecord:
        """The cell's answer to a question."""
        with self.net.socket(kind=socket.SOCK_DGRAM) as sock:
            sock.sendto(DNSRecord.question(name, kind).pack(), (GATEWAY, 53))
            return DNSRecord.parse(sock.recv(4096))

    def connect(self, host: str, port: int) -> Program:
        """Connect as a program inside would: names are resolved, addresses taken as they are."""
        literal = ":" in host or host.replace(".", "").isdigit()
        address = host if literal else self.resolve(host)
        sock = self.net.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        return Program(sock, address, port)

    def http(self, host: str, head: str, port: int = 80, *, end: bool = True) -> bytes:
        """Send one request head, LF for CRLF, and read the answer to its end."""
        with self.connect(host, port) as program:
            program.send(head.replace("\n", "\r\n").encode("latin-1"))
            if end:
                program.finish()
            return program.rest()

    def tls(self, host: str, name: str | None, port: int = 443) -> ssl.SSLSocket:
        """A TLS connection whose ClientHello says `name`; raises what the program would see."""
        program = self.connect(host, port)
        try:
            return insecure().wrap_socket(program.sock, server_hostname=name)
        except BaseException:
            program.close()
            raise

    def lab_listener(self, address: str) -> socket.socket:
        """A listening socket on the lab's host, for whoever calls to close."""
        sock = socket_in(self.lab.host)
        sock.bind((address, 0))
        sock.listen()
        return sock

    def records(self) -> list[dict[str, Any]]:
        """Every audit record since the mark, in order."""
        return self._all_records()[self._recorded :]

    def _all_records(self) -> list[dict[str, Any]]:
        found = []
        for path in sorted((self.home / "audit").glob("*.jsonl")):
            found += [
                json.loads(line) for line in path.read_text().splitlines(keepends=True) if line[-1] == "\n"
            ]
        return found

    def events(self) -> list[dict[str, Any]]:
        """The attempts of which anything was recorded since the mark, later fields over earlier ones.

        What was folded is only in its event's `count`, which is how often it happened since the mark.
        """
        merged: dict[tuple[str, int], dict[str, Any]] = {}
        before: dict[tuple[str, int], int] = {}
        fresh: set[tuple[str, int]] = set()
        for number, record in enumerate(self._all_records()):
            if "conn" not in record:
                continue
            key, fields = (record["run"], record["conn"]), record
            if record["kind"] == "fold":
                merged.pop(key, None)
                key, fields = (record["run"], record["into"]), {"count": record["count"]}
            merged.setdefault(key, {}).update(fields)
            if number >= self._recorded:
                # The end of what began before the mark is not of this test.
                if key not in before or record["kind"] not in {"verdict", "close"}:
                    fresh.add(key)
            else:
                before[key] = int(merged[key].get("count", 0))
        found = [{**merged[key], "before": before.get(key, 0)} for key in merged if key in fresh]
        return [
            {**each, "count": each["count"] - each["before"]} if "count" in each else each for each in found
        ]

    def counted(self) -> int:
        """The counts of all events together."""
        return sum(int(each.get("count", 0)) for each in self.events())

    def event(self, **wanted: Any) -> dict[str, Any]:
        """The last event with these values that is shown (it was judged, or counts what was not), waited for."""

        def last() -> dict[str, Any] | None:
            found = [
                each
                for each in self.events()
                if {"verdict", "count"} & each.keys()
                and all(each.get(key) == value for key, value in wanted.items())
            ]
            return found[-1] if found else None

        found = eventually(last, what=f"an event with {wanted}")
        assert isinstance(found, dict)
        return found


def policy(
    mode: str = "deny",
    allow: Sequence[str | dict[str, Any]] = (),
    deny: Sequence[str] = (),
    hosts: dict[str, list[str]] | None = None,
) -> dict[str, Any]:
    """A policy's JSON form."""
    rules: list[dict[str, Any]] = []
    for pattern in allow:
        rule = {"pattern": pattern} if isinstance(pattern, str) else dict(pattern)
        rules.append({"list": "allow", "scope": "account", "private": [], "broad": False, **rule})
    rules += [
        {"pattern": each, "list": "deny", "scope": "account", "private": [], "broad": False} for each in deny
    ]
    return {"mode": mode, "rules": rules, "hosts": hosts or {}}


def insecure() -> ssl.SSLContext:
    """A client that takes any certificate."""
    # The authorities that a default context reads are of no use here, and take 20 ms.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def client_hello(name: str) -> bytes:
    """The first bytes of a TLS client."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        insecure().wrap_bio(incoming, outgoing, server_hostname=name).do_handshake()
    return outgoing.read()


def retry_request() -> bytes:
    """A server's answer that asks for a second ClientHello (RFC 8446, section 4.1.4)."""
    random = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
    # No session id, TLS_AES_128_GCM_SHA256, no compression; extensions: version 1.3, and another group for the key.
    said = b"\x03\x03" + random + b"\0\x13\x01\0" + b"\0\x0c\0\x2b\0\x02\x03\x04\0\x33\0\x02\0\x18"
    message = b"\x02" + len(said).to_bytes(3, "big") + said
    return b"\x16\x03\x03" + len(message).to_bytes(2, "big") + message


@contextmanager
def make_stand(lab: Lab, home: Path, net: CellNet, *, patient: bool = False) -> Iterator[Stand]:
    """A running gateway with one cell."""
    stand = Stand(lab, home, net)
    try:
        stand.start(patient=patient)
        yield stand
    finally:
        stand.stop()


def quick(work: Callable[[], object]) -> float:
    """Seconds that something takes."""
    import time

    began = time.monotonic()
    work()
    return time.monotonic() - began


def in_time(seconds: float, work: Callable[[], float]) -> bool:
    """Whether one of many tries takes less: a machine that stands still now and then adds to some, a fault to all."""
    return any(work() < seconds for _ in range(TRIES))
