"""Cells: what is in them, what gets out of them, and what is left when they are gone; for root and an ordinary user alike."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from tests.local.people import CELL_NEEDS, PYTHON, Kept, Person, eventually, keeping, slay
from tests.machine import Machine

from irons_local.cell.network import MOST_BUFFER
from irons_local.ipc.framing import Message, RequestError
from irons_local.keeper.cells import children
from irons_local.keeper.cells.requests import ChildResult
from irons_local.linux.idmap import PRIVATE_BASE

SQUAT = """
import errno, socket
def attempt(family, kind, address):
    with socket.socket(family, kind) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            sock.bind(address)
            sock.listen() if kind == socket.SOCK_STREAM else None
            return "taken"
        except OSError as error:
            return errno.errorcode[error.errno]
four, six, stream, datagram = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM, socket.SOCK_DGRAM
tries = [(four, stream, ("0.0.0.0", 15001)), (four, stream, ("127.0.0.1", 15001)), (six, stream, ("::", 15001)),
         (four, stream, ("100.64.0.1", 53)), (six, stream, ("fd64::1", 53)), (four, datagram, ("0.0.0.0", 53)),
         (four, datagram, ("100.64.0.1", 53)), (six, datagram, ("fd64::1", 53))]
print(*[attempt(*one) for one in tries])
"""

IMPATIENT = """
import socket
try:
    with socket.create_connection(("203.0.113.7", 443), timeout=5) as sock:
        print(sock.recv(100))
except OSError as error:
    print(type(error).__name__)
"""

TAKE = """
import socket, time
socks = []
for kind, port in ((socket.SOCK_STREAM, 15001), (socket.SOCK_DGRAM, 53)):
    sock = socket.socket(socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    while True:
        try:
            sock.bind(("0.0.0.0", port))
            break
        except OSError:
            time.sleep(0.01)
    socks.append(sock)
socks[0].listen()
open("/taken", "w").close()
accepted, _ = socks[0].accept()
open("/caught", "w").close()
"""


def holders(kind: str, inode: int) -> list[int]:
    """Processes besides this one that are in a namespace or hold a descriptor of it."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            names = [process / "ns" / kind, *(process / "fd").iterdir()]
            found += [int(process.name) for name in names if _inode(name) == f"{kind}:[{inode}]"]
    return [pid for pid in found if pid != os.getpid()]


def _inode(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return ""


def test_a_cell_has_only_loopback_and_no_process(lasting: Kept) -> None:
    """A fresh cell has one loopback device, no route out, and no one in it but what is run there."""
    cell = lasting.make()
    code, links = lasting.inside(cell, "ip", "-o", "link")
    assert code == 0
    assert [line.split(": ")[1] for line in links.splitlines()] == ["lo"]
    assert "unreachable" not in lasting.inside(cell, "ip", "route")[1]
    inode = int(lasting.python(cell, "import os; print(os.stat('/proc/self/ns/net').st_ino)"))

    def inside() -> list[Path]:
        return [path for path in Path("/proc").glob("[0-9]*/ns/net") if _inode(path) == f"net:[{inode}]"]

    # What made it ends some time after it has said so.
    eventually(lambda: not inside(), what="nothing to be left in it")


@pytest.mark.parametrize("name", ["tcp_rmem", "tcp_wmem"])
def test_buffers_inside_grow_to_a_bound(lasting: Kept, name: str) -> None:
    """What a program does not read takes little of the memory that TCP has on the machine, whatever that lets buffers grow to."""
    sizes = [
        int(size) for size in lasting.inside(lasting.make(), "cat", f"/proc/sys/net/ipv4/{name}")[1].split()
    ]
    ours = [int(size) for size in Path(f"/proc/sys/net/ipv4/{name}").read_text().split()]
    assert sizes == [*ours[:2], min(ours[2], MOST_BUFFER[name])]


def test_root_inside_is_nobody_outside(lasting: Kept) -> None:
    """A cell's ids are the user's own and subordinate ones; root's are a private range."""
    lines = [
        line.split() for line in lasting.inside(lasting.make(), "cat", "/proc/self/uid_map")[1].splitlines()
    ]
    if lasting.person.uid == 0:
        assert lines == [["0", str(PRIVATE_BASE), "65536"]]
    else:
        assert lines[0] == ["0", str(lasting.person.uid), "1"]
        assert lines[1][0] == "1"
        assert lines[1][2] == "65535"


@pytest.mark.parametrize(
    ("host", "port"), [("203.0.113.7", 443), ("10.0.0.1", 22), ("2001:db8::7", 8080), ("100.64.0.1", 80)]
)
def test_every_tcp_connection_reaches_the_gateway(lasting: Kept, host: str, port: int) -> None:
    """Wherever a program connects, the gateway has it, and knows where it was meant to go."""
    assert lasting.judged(lasting.make(), host, port) == f"{host} {port}"


def test_names_are_answered_by_the_gateway_whoever_is_asked(lasting: Kept) -> None:
    """A DNS question to any server, over UDP or TCP, IPv4 or IPv6, is answered inside the cell."""
    program = """
import socket
for family, server in ((socket.AF_INET, "100.64.0.1"), (socket.AF_INET, "8.8.8.8"), (socket.AF_INET6, "2001:db8::53")):
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(60)
        sock.connect((server, 53))
        sock.send(b"question")
        print(sock.recv(100).decode())
    with socket.create_connection((server, 53), timeout=60) as sock:
        print(sock.makefile().read().strip())
"""
    answers = lasting.python(lasting.make(), program).split("\n")
    assert answers == ["question", "100.64.0.1 53"] * 2 + ["question", "fd64::1 53"]


def test_udp_and_icmp_are_refused_at_once_and_told(lasting: Kept) -> None:
    """A datagram to anywhere is refused in the sending call itself, and the gateway hears of it."""
    program = """
import socket
for family, kind, to in ((socket.AF_INET, socket.IPPROTO_UDP, "203.0.113.7"), (socket.AF_INET6, socket.IPPROTO_UDP, "2001:db8::7"),
                         (socket.AF_INET, socket.IPPROTO_ICMP, "203.0.113.7")):
    with socket.socket(family, socket.SOCK_DGRAM, kind) as sock:
        try:
            sock.sendto(bytes([8, 0, 0, 0, 0, 0, 0, 0]), (to, 443))
            print("sent")
        except OSError as error:
            print(type(error).__name__)
"""

    def told() -> int:
        return len([note for note in lasting.heard() if "refused" in note])

    cell, before = lasting.make(), told()
    assert lasting.python(cell, program).split() == ["PermissionError"] * 3
    eventually(lambda: told() >= before + 3, what="three refusals told")


def test_a_sandbox_reaches_itself(lasting: Kept) -> None:
    """Connections to the loopback and to the sandbox's own address stay inside and pass no judge."""
    program = """
import socket
with socket.create_server(("0.0.0.0", 22)) as server:
    for host in ("127.0.0.1", "100.64.0.2"):
        with socket.create_connection((host, 22), timeout=60), server.accept()[0] as accepted:
            print(accepted.getsockname()[0])
"""
    assert lasting.python(lasting.make(), program).split() == ["127.0.0.1", "100.64.0.2"]


def test_nothing_inside_can_take_the_gateways_ports(kept: Kept) -> None:
    """A process inside that wants the gateway's ports finds them taken, with the gateway alive or killed."""
    cell = kept.make()
    assert set(kept.python(cell, SQUAT).split()) == {"EADDRINUSE"}
    (kept.person.paths.gateway / "broken").touch()
    slay(kept.status()["gateway"]["pid"])
    assert set(kept.python(cell, SQUAT).split()) == {"EADDRINUSE"}


ASK = """
import os, signal, socket, time
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
socks = []
for server in ("100.64.0.1", "9.9.9.9"):
    sock = socket.socket(type=socket.SOCK_DGRAM)
    sock.settimeout(60)
    sock.connect((server, 53))
    sock.send(b"q")
    sock.recv(9)
    socks.append(sock)
open("/mnt/asked", "w").close()
signal.sigwait({signal.SIGUSR1})
said = []
for sock in socks:
    sock.settimeout(60)
    try:
        sock.send(b"r")
        said.append(sock.recv(9).decode())
    except OSError as error:
        said.append(type(error).__name__)
with open("/mnt/new", "w") as file:
    file.write(" ".join(said))
os.rename("/mnt/new", "/mnt/said")
time.sleep(600)
"""


def test_a_resolver_that_keeps_its_socket_finds_the_new_ports(kept: Kept) -> None:
    """After a recovery that took other ports, questions from sockets of before are answered, and not refused as UDP."""
    cell = kept.make()
    own = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs tmpfs /mnt && exec "$@"', "sh", PYTHON, "-c"]
    squatter = kept.background(cell, *own, TAKE.replace('"/taken"', '"/mnt/taken"'))
    asker = kept.background(cell, *own, ASK)
    seen = Path(f"/proc/{asker['pid']}/root/mnt")
    eventually((seen / "asked").exists, what="the first answers")
    gateway = kept.status()["gateway"]["pid"]
    kept.kill()
    slay(gateway)
    eventually(Path(f"/proc/{squatter['pid']}/root/mnt/taken").exists, what="the squatter to have the ports")
    kept.start()
    adopted = kept.ask("cell.adopt", cell=cell, pid=squatter["pid"], started=squatter["started"])
    assert adopted["ports"]["dns"] != 53
    eventually(lambda: kept.heard(attach=cell)[1:], what="the gateway to have the cell again")
    os.kill(asker["pid"], signal.SIGUSR1)
    eventually((seen / "said").exists, what="the second answers")
    assert (seen / "said").read_text() == "r r"


def test_a_squatter_of_the_gap_gets_nothing(kept: Kept) -> None:
    """When keeper and gateway died and a process inside took their ports, others are found and it is handed nothing."""
    cell = kept.make()
    program = TAKE.replace('"/taken"', '"/mnt/taken"').replace('"/caught"', '"/mnt/caught"')
    script = 'mount -t tmpfs tmpfs /mnt && exec "$@"'
    own = ["unshare", "--mount", "sh", "-c", script, "sh"]
    squatter = kept.background(cell, *own, PYTHON, "-c", program)
    seen = Path(f"/proc/{squatter['pid']}/root/mnt")
    gateway = kept.status()["gateway"]["pid"]
    kept.kill()
    slay(gateway)
    eventually((seen / "taken").exists, what="the squatter to have the ports")
    kept.start()
    adopted = kept.ask("cell.adopt", cell=cell, pid=squatter["pid"], started=squatter["started"])
    assert adopted["fresh"]
    assert adopted["ports"]["tcp"] != 15001
    assert adopted["ports"]["dns"] != 53
    eventually(lambda: kept.heard(attach=cell)[1:], what="the gateway to have the cell again")
    assert kept.judged(cell) == "203.0.113.7 443"
    test = 'import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.settimeout(60); s.connect(("{}", 53)); s.send(b"q"); print(s.recv(9))'
    for server in ("100.64.0.1", "9.9.9.9"):
        assert kept.python(cell, test.format(server)) == "b'q'"
    assert not (seen / "caught").exists()


def test_without_a_gateway_connections_are_refused_and_counted(person: Person, machine: Machine) -> None:
    """Without a gateway connections are reset; one that serves notes how many, not one that only began or ends at the news."""
    with keeping(person, machine=machine, patience=0.1) as kept:
        cell = kept.make()
        folder = kept.person.paths.gateway
        for name in ("broken", "deaf"):
            (folder / name).touch()
        slay(kept.status()["gateway"]["pid"])
        refused = [kept.judged(cell) for _ in range(3)]
        (folder / "stuck").touch()
        # A moment after one was started, connections wait for it.
        while (got := kept.python(cell, IMPATIENT)) != "TimeoutError":
            refused.append(got)
        (folder / "broken").unlink()
        (folder / "stuck").unlink()
        while (got := kept.judged(cell)) != "203.0.113.7 443":
            refused.append(got)

        def told() -> int:
            return sum(note["count"] for note in kept.heard(missed=cell))

        # The keeper refuses for a moment after one has begun, too, and gives that number apart.
        eventually(lambda: told() >= len(refused), what="the count to be told")
        assert {*refused} == {"ConnectionResetError"}
        # The one that waited in vain was refused at last, unless the next gateway came first.
        assert told() in (len(refused), len(refused) + 1)
        assert not (folder / "deaf").exists()


def test_connections_into_a_cell(lasting: Kept) -> None:
    """A connection made inside is handed out as a descriptor; where no one listens the errno is returned."""
    cell = lasting.make()
    program = (
        "import socket\nwith socket.create_server(('127.0.0.1', 22)) as s: s.accept()[0].sendall(b'banner')"
    )
    lasting.background(cell, PYTHON, "-c", program)

    def banner() -> bytes:
        with lasting.person.link() as link, suppress(RequestError):
            fd = link.request("cell.connect", cell=cell, address="127.0.0.1", port=22).fds.pop()
            with os.fdopen(fd, "rb", buffering=0) as file:
                return bytes(file.read(6))
        return b""

    assert eventually(banner, what="the server inside") == b"banner"
    with pytest.raises(RequestError) as caught:
        lasting.ask("cell.connect", cell=cell, address="127.0.0.1", port=1)
    assert caught.value.code == "ECONNREFUSED"
    with pytest.raises(RequestError):
        lasting.ask("cell.connect", cell=cell, address="localhost", port=1)


@pytest.mark.needs(*CELL_NEEDS)
def test_many_cells_at_once(lasting: Kept) -> None:
    """Ten cells made at the same time all work, and each is its own."""
    names = [f"sb_{number:016x}" for number in range(0x100, 0x10A)]
    before = lasting.status()["cells"]
    # One connection each, made beforehand: making one changes the user id of the whole process for a moment.
    links = [lasting.person.link() for _ in names]
    with ThreadPoolExecutor(10) as pool:
        list(pool.map(lambda link, name: link.request("cell.make", cell=name), links, names))
    for link in links:
        link.close()
    assert lasting.status()["cells"] == before + 10
    inodes = {lasting.python(name, "import os; print(os.stat('/proc/self/ns/net').st_ino)") for name in names}
    assert len(inodes) == 10


def test_a_dropped_cell_leaves_nothing(lasting: Kept) -> None:
    """After a drop no process holds the cell's namespaces, and the gateway has let go of it."""
    before = lasting.status()["cells"]
    cell = lasting.make()
    with lasting.person.link() as link:
        message = link.request("cell.namespaces", cell=cell)
    try:
        # As long as they are open here, no namespace that another test makes is given their numbers.
        inodes = [
            (kind, os.fstat(fd).st_ino) for kind, fd in zip(("user", "net", "mnt"), message.fds, strict=True)
        ]
        assert holders(*inodes[1])
        lasting.ask("cell.drop", cell=cell)
        lasting.ask("cell.drop", cell=cell)
        eventually(lambda: lasting.heard(detach=cell), what="the gateway to let go")
        # A process that ends lets go of its namespaces some time after its parent was notified of the end.
        eventually(lambda: not any(holders(*space) for space in inodes), what="free namespaces")
    finally:
        message.close()
    assert lasting.status()["cells"] == before


def test_requests_that_make_no_sense(lasting: Kept) -> None:
    """Bad names, unknown cells and unknown operations are refused, and the keeper serves on."""
    for op, fields, code in (
        ("cell.make", {"cell": "../x"}, "input"),
        ("cell.make", {}, "input"),
        ("cell.namespaces", {"cell": "sb_ffffffffffffffff"}, "absent"),
        ("cell.adopt", {"cell": "sb_ffffffffffffffff", "pid": os.getpid(), "started": 1}, "absent"),
        ("nonsense", {}, "unknown"),
    ):
        with pytest.raises(RequestError) as caught:
            lasting.ask(op, **fields)
        assert caught.value.code == code
    cell = lasting.make()
    with pytest.raises(RequestError) as caught:
        lasting.ask("cell.make", cell=cell)
    assert caught.value.code == "exists"


class _HeldLoop:
    """A keeper's loop that calls nothing back by itself."""

    def after(self, _seconds: float, late: Callable[[], None]) -> _HeldLoop:
        self.late = late
        return self

    def watch(self, _fd: int, _events: int, ready: Callable[[], None]) -> None:
        self.ready = ready

    def cancel(self) -> None:
        """Nothing runs."""

    def forget(self, _fd: int) -> None:
        """Nothing is watched."""


@pytest.mark.process
def test_a_child_that_takes_too_long_is_told_from_one_that_was_ended() -> None:
    """One that the keeper ended for its time is `late`; one that something else ended is not."""
    for late in (True, False):
        loop, heard = _HeldLoop(), list[Message | None]()
        child = children.fork(lambda _: signal.pause())
        report = ChildResult(loop, child, heard.append, 3.0)  # type: ignore[arg-type]
        if late:
            loop.late()
        else:
            os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        loop.ready()
        assert (heard, report.late) == ([None], late)
