"""A port scan from inside a virtual machine, and one of its cell's loopback."""

from __future__ import annotations

import ast
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from irons_local.cell.layout import GATEWAY4, GATEWAY6, Ports
from tests.e2e.conftest import clear_policy
from tests.e2e.lab import Person
from tests.e2e.machines import WITHIN, end_all, only_in_test_vm, run_inside, status
from tests.machine import Machine

SSH = 22

KNOWN = (*range(1, 101), 111, 139, 443, 445, 631, 2049, 3128, 3306, 5432, 5900, 6000, 8000, 8080, 8443, 9000)

# Connects to pairs of an address and a port, many at once, asks each that answers for a page, and keeps the beginning of what it says.
SCAN = r"""
import errno, select, socket, time

def scan(pairs, at_once, wait):
    told, open_, poll, pairs = {}, {}, select.epoll(), iter(pairs)

    def over(number, said):
        pair, sock, _ = open_.pop(number)
        poll.unregister(number)
        sock.close()
        told[pair] = said

    def begin():
        for pair in pairs:
            sock = socket.socket(socket.AF_INET6 if ":" in pair[0] else socket.AF_INET)
            sock.setblocking(False)
            code = sock.connect_ex(pair)
            if code in (0, errno.EINPROGRESS):
                open_[sock.fileno()] = pair, sock, time.monotonic() + wait
                poll.register(sock, select.EPOLLOUT)
                return True
            sock.close()
            told[pair] = errno.errorcode[code]
        return False

    while True:
        while len(open_) < at_once and begin():
            pass
        if not open_:
            return told
        for number, event in poll.poll(1):
            sock = open_[number][1]
            try:
                if code := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    over(number, errno.errorcode[code])
                elif event & select.EPOLLOUT and sock.getsockname() == sock.getpeername():
                    # From that port, which no one has: TCP's simultaneous open.
                    over(number, "ITSELF")
                elif event & select.EPOLLOUT:
                    sock.send(b"GET / HTTP/1.1\r\nHost: web.example.test\r\n\r\n")
                    poll.modify(number, select.EPOLLIN)
                else:
                    over(number, sock.recv(12))
            except OSError as error:
                over(number, errno.errorcode[error.errno])
        for number in [number for number, each in open_.items() if each[2] < time.monotonic()]:
            over(number, "SILENT")
"""

ENTER = r"""
import ctypes, os, sys
space = os.open(f"/proc/{sys.argv[1]}/ns/net", os.O_RDONLY)
assert ctypes.CDLL(None, use_errno=True).setns(space, 0x40000000) == 0, os.strerror(ctypes.get_errno())
"""

SILENT = {
    "ECONNREFUSED",
    "ECONNRESET",
    "ETIMEDOUT",
    "EHOSTUNREACH",
    "ENETUNREACH",
    "EPIPE",
    "SILENT",
    "ITSELF",
}

GATEWAY = {b"HTTP/1.1 403", b""}
"""What the gateway says to who asks for a page that no rule allows, and its name server to who asks for one."""


def answering(text: str) -> dict[tuple[str, int], bytes | str]:
    """Of what a scan printed last, those that answered, and what they said."""
    found: dict[tuple[str, int], bytes | str] = ast.literal_eval(text.splitlines()[-1])
    return {pair: said for pair, said in found.items() if said not in SILENT}


def listening() -> set[int]:
    """The TCP ports on which anything of this machine's listens, keeper and control plane among them."""
    lines = [line for each in ("tcp", "tcp6") for line in Path(f"/proc/net/{each}").read_text().splitlines()]
    return {int(each[1].rpartition(":")[2], 16) for each in map(str.split, lines) if each[3] == "0A"}


@pytest.mark.vm
@only_in_test_vm
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("person", ["user"], indirect=True)
def test_the_gateway_and_its_own_ssh_server_alone_answer_a_scan(
    person: Person, machine: Machine, vm_image: Path
) -> None:
    """On each port of the cell's loopback, and from the guest on those that are known or that the host listens on.

    QEMU's user network makes a connection of the cell to its loopback, or to its name server, of each that a guest makes to an address of that network.
    """
    machine.require("qemu-system-x86_64", "mke2fs")
    clear_policy(person)
    person.ok("local", "image", "import", str(vm_image), "--as", "debian-vm", timeout=300)
    words = ("--engine", "vm", "--memory", "512M", "--mode", "deny", "--wait-timeout", f"{WITHIN}s")
    with ExitStack() as ends:
        ends.callback(end_all, person)
        person.ok("create", "scanner", *words, timeout=WITHIN)
        traps = []
        for family, address in (
            (socket.AF_INET, ""),
            (socket.AF_INET, "127.0.0.1"),
            (socket.AF_INET6, "::1"),
        ):
            trap = ends.enter_context(socket.create_server((address, 0), family=family))
            trap.setblocking(False)
            traps.append(trap)

        pid = status(person, "scanner")["pid"]
        each_port = (
            f"{SCAN}{ENTER}\nprint(scan([(a, p) for a in sys.argv[2:] for p in range(1, 65536)], 64, 300))"
        )
        inner = subprocess.run(
            [sys.executable, "-c", each_port, str(pid), "127.0.0.1", "::1"],
            check=True,
            capture_output=True,
            text=True,
            timeout=1800,
        )
        inner_answers = answering(inner.stdout)
        ports = sorted({*KNOWN, *listening(), Ports().tcp, *range(97, 65536, 997)})
        addresses = ("10.0.2.2", "10.0.2.3", "10.0.2.15", "fec0::2", "fec0::3", GATEWAY4, GATEWAY6)
        asked = f"{SCAN}\nprint(scan([(a, p) for p in {ports} for a in {addresses}], 200, 300))"
        done = run_inside(person, "scanner", "sudo", "python3", "-", text=asked, within=3000)
        assert done.returncode == 0, done
        answers = answering(done.stdout)
        for trap in traps:
            with pytest.raises(BlockingIOError):
                trap.accept()

    # Each port of the gateway's address is the gateway's, as each of any other address is.
    of_gateway = {pair: said for pair, said in answers.items() if pair[0] in {GATEWAY4, GATEWAY6}}
    near = {**inner_answers, **{pair: said for pair, said in answers.items() if pair not in of_gateway}}
    servers = {pair: said for pair, said in near.items() if pair[1] == SSH}
    # On its own address it may reset the connection, with what it had said: it was asked for a page.
    assert {("127.0.0.1", SSH), ("10.0.2.2", SSH)} == servers.keys() - {("10.0.2.15", SSH)}, near
    assert set(servers.values()) == {b"SSH-2.0-Open"}, near
    assert {port for _, port in near} - {SSH} <= {Ports().tcp, Ports().dns}, near
    said = {said for pair, said in {**near, **of_gateway}.items() if pair not in servers}
    assert b"HTTP/1.1 403" in said, answers
    assert said <= GATEWAY, answers
