"""Cells with a veth: what an instance on the outer end reaches, who removes what, and what outlives keeper and gateway."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from tests.local.people import CELL_NEEDS, Kept, eventually, keeping, ordinary_person, root_person, slay
from tests.local.plugged import Space, plug_in, space, unplug
from tests.machine import Machine

from irons_local.cell import layout, veth
from irons_local.ipc.framing import RequestError
from irons_local.linux.namespaces import started

pytestmark = pytest.mark.needs("root", "networks", *CELL_NEEDS)

CELL = "sb_00000000000000f1"
OUTER = "irs-00000000000"

CONNECT = """
import socket, sys
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=100) as sock:
        print(sock.makefile().read())
except OSError as error:
    print(type(error).__name__)
"""


@pytest.fixture
def host() -> Iterator[Space]:
    """A network namespace that plays the machine, and forwards."""
    with space() as made:
        for name in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            made.ok("sysctl", "-w", f"{name}=1")
        yield made


@pytest.fixture
def plugged(host: Space, machine: Machine) -> Iterator[Kept]:
    """A keeper of root's in it, with stand-ins."""
    with root_person() as person:
        inside = replace(person, prefix=tuple(host.enter()))
        with keeping(inside, machine=machine) as kept:
            yield kept


def make(kept: Kept, cell: str = CELL) -> layout.Veth:
    """Make a cell with a veth, and wait until the gateway has it."""
    made = layout.Veth(**kept.ask("cell.make", cell=cell, veth=True)["veth"])
    # It holds the cell beyond the keeper's end.
    kept._left.callback(veth.end_holder, made)
    eventually(lambda: kept.heard(attach=cell), what="the gateway to have the cell")
    return made


def table(host: Space) -> str:
    """Our rules for the machine."""
    return host.run("nft", "list", "table", "inet", "irons_veths").stdout


def test_the_outer_end_waits_for_an_instance(plugged: Kept, host: Space) -> None:
    """It is down, has no address, speaks no IPv6 and is dropped; the drop goes with the last cell."""
    made = make(plugged)
    assert made.name == OUTER
    link: dict[str, Any] = host.links()[OUTER]
    assert "UP" not in link["flags"]
    assert link["addr_info"] == []
    assert host.ok("cat", f"/proc/sys/net/ipv6/conf/{OUTER}/disable_ipv6") == "1\n"
    other = make(plugged, "sb_1234567890abcdef")
    assert other.name == "irs-1234567890a"
    assert OUTER in table(host)
    assert other.name in table(host)
    plugged.ask("cell.drop", cell=CELL)
    assert OUTER not in host.links()
    assert OUTER not in table(host)
    assert other.name in table(host)
    plugged.ask("cell.drop", cell="sb_1234567890abcdef")
    assert table(host) == ""
    assert not [name for name in host.links() if name.startswith("irs-")]
    eventually(
        lambda: [started(each.pid) for each in (made, other)] == [None, None], what="the holders to end"
    )


@pytest.mark.parametrize(
    ("address", "port"), [("203.0.113.7", 443), ("2001:db8::7", 8080), ("100.64.0.1", 80), ("10.0.0.1", 22)]
)
def test_every_tcp_connection_of_an_instance_reaches_the_gateway(
    plugged: Kept, host: Space, address: str, port: int
) -> None:
    """Wherever it connects, the gateway has it, and knows where it was meant to go."""
    with space() as instance:
        plug_in(host, instance, make(plugged).name)
        assert instance.python(CONNECT, address, str(port)) == f"{address} {port}"
        plugged.ask("cell.drop", cell=CELL)
        assert list(instance.links()) == ["lo"]


def test_names_are_answered_by_the_gateway_whoever_an_instance_asks(plugged: Kept, host: Space) -> None:
    """A DNS question to any server, over UDP or TCP, IPv4 or IPv6, is answered in the cell, by the server that was asked."""
    program = """
import socket
for family, server in ((socket.AF_INET, "100.64.0.1"), (socket.AF_INET, "8.8.8.8"), (socket.AF_INET6, "2001:db8::53")):
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.settimeout(100)
        sock.connect((server, 53))
        sock.send(b"question")
        print(sock.recv(100).decode())
    with socket.create_connection((server, 53), timeout=100) as sock:
        print(sock.makefile().read().strip())
"""
    with space() as instance:
        plug_in(host, instance, make(plugged).name)
        answers = instance.python(program).split("\n")
        assert answers == ["question", "100.64.0.1 53"] * 2 + ["question", "fd64::1 53"]


def test_udp_and_icmp_of_an_instance_are_refused_and_told(plugged: Kept, host: Space) -> None:
    """A datagram to anywhere is answered with an ICMP error, and the gateway hears of each."""
    program = """
import socket
for family, kind, to in ((socket.AF_INET, socket.IPPROTO_UDP, "203.0.113.7"), (socket.AF_INET6, socket.IPPROTO_UDP, "2001:db8::7"),
                         (socket.AF_INET, socket.IPPROTO_UDP, "100.64.0.1")):
    with socket.socket(family, socket.SOCK_DGRAM, kind) as sock:
        sock.settimeout(100)
        sock.connect((to, 443))
        try:
            sock.send(b"hello")
            print(sock.recv(10))
        except OSError as error:
            print(type(error).__name__)
with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
    sock.settimeout(100)
    sock.sendto(bytes([8, 0, 0xf7, 0xff, 0, 0, 0, 0]), ("203.0.113.8", 0))
    print(*sock.recv(100)[20:22])
"""
    with space() as instance:
        plug_in(host, instance, make(plugged).name)
        # The last is "destination unreachable, communication administratively prohibited" (RFC 1812).
        assert instance.python(program).split("\n") == ["ConnectionRefusedError"] * 3 + ["3 13"]
        eventually(lambda: _refused(plugged) >= 4, what="four told")


def _refused(kept: Kept) -> int:
    return len([note for note in kept.heard() if "refused" in note])


def test_a_flood_of_neighbours_fills_no_table_of_the_machine(plugged: Kept, host: Space) -> None:
    """Of the addresses that ask for the gateway's, by NDP or ARP, few are remembered, and the machine's own go on."""
    flood = """
import socket, struct, sys
def total(data):
    number = sum(struct.unpack(f">{len(data) // 2}H", data))
    while number >> 16:
        number = (number & 0xFFFF) + (number >> 16)
    return ~number & 0xFFFF
mine, theirs = (bytes.fromhex(each.replace(":", "")) for each in sys.argv[1:])
to = socket.inet_pton(socket.AF_INET6, "fd64::1")
with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
    out.bind(("eth0", 0))
    for number in range(500):
        source = socket.inet_pton(socket.AF_INET6, f"fe80::1:{number:x}")
        out.send(b"\\xff" * 6 + mine + b"\\x08\\x06" + struct.pack(">HHBBH", 1, 2048, 6, 4, 1) + mine + socket.inet_aton(f"10.7.{number >> 8}.{number & 255}") + bytes(6) + socket.inet_aton("100.64.0.1"))
        asked = struct.pack(">BBHI", 135, 0, 0, 0) + to + b"\\x01\\x01" + mine
        check = total(source + to + struct.pack(">II", len(asked), 58) + asked)
        asked = asked[:2] + struct.pack(">H", check) + asked[4:]
        out.send(theirs + mine + b"\\x86\\xdd" + struct.pack(">IHBB", 6 << 28, len(asked), 58, 255) + source + to + asked)
"""
    with space() as instance:
        made = make(plugged)
        plug_in(host, instance, made.name)
        cell = Space(made.pid)
        macs = [
            str(each.links()[name]["address"]) for each, name in ((instance, "eth0"), (cell, layout.INNER))
        ]
        instance.python(flood, *macs)
        # One packet is taken after the other.
        assert instance.python(CONNECT, "2001:db8::7", "443") == "2001:db8::7 443"
        assert "10.7." not in cell.ok("ip", "-4", "neigh", "show", "dev", layout.INNER)
        known = cell.ok("ip", "-6", "neigh", "show", "dev", layout.INNER).splitlines()
        assert 1 < len([line for line in known if line.startswith("fe80::1:")]) <= 8


@pytest.mark.parametrize("address", ["100.64.0.2", "127.0.0.1"])
def test_ssh_is_reached_from_the_cell(plugged: Kept, host: Space, address: str) -> None:
    """A connection to the instance's own address, or to the loopback that every engine's clients ask for, is made in the cell, and what it answers comes back."""
    program = "import socket\nwith socket.create_server(('', 22)) as s: print(flush=True); s.accept()[0].sendall(b'banner')"
    with space() as instance:
        plug_in(host, instance, make(plugged).name)
        words = instance.enter(sys.executable, "-c", program)
        with subprocess.Popen(words, stdout=subprocess.PIPE) as server:
            assert server.stdout is not None
            server.stdout.readline()
            with plugged.person.link() as link:
                fd = link.request("cell.connect", cell=CELL, address=address, port=22).fds.pop()
            with os.fdopen(fd, "rb", buffering=0) as file:
                assert file.read(6) == b"banner"


def test_a_name_that_is_taken_is_left_alone(plugged: Kept, host: Space) -> None:
    """An interface of that name is not touched, the answer names it, and nothing of the cell stays."""
    host.ok("ip", "link", "add", OUTER, "type", "veth", "peer", "name", "theirs")
    with pytest.raises(RequestError, match=OUTER) as caught:
        plugged.ask("cell.make", cell=CELL, veth=True)
    assert caught.value.code == "exists"
    assert {OUTER, "theirs"} <= set(host.links())
    assert table(host) == ""
    assert plugged.status()["cells"] == 0
    remove_left(host, layout.Veth(OUTER, os.getpid(), 1))
    assert {OUTER, "theirs"} <= set(host.links())


def remove_left(host: Space, made: layout.Veth) -> None:
    """Remove what is left of a cell, on that host."""
    host.python(
        "import sys\nfrom irons_local.cell import layout, veth\n"
        "veth.remove_left(layout.Veth(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))",
        *map(str, made),
    )


def test_a_stopped_instance_gives_it_back(plugged: Kept, host: Space) -> None:
    """The cell stays while the outer end is in the machine again, where its packets are dropped, and serves the next start."""
    made = make(plugged)
    for _ in range(2):
        with space() as instance:
            plug_in(host, instance, made.name)
            assert instance.python(CONNECT, "203.0.113.7", "443") == "203.0.113.7 443"
            unplug(host, instance, made.name)
        link: dict[str, Any] = host.links()[made.name]
        assert "UP" not in link["flags"]
    # Someone brings it up there: what the cell sends arrives nowhere.
    host.ok("ip", "addr", "add", "100.64.0.2/30", "dev", made.name)
    host.ok("ip", "link", "set", made.name, "up")
    with pytest.raises(RequestError) as caught:
        plugged.ask("cell.connect", cell=CELL, address="100.64.0.2", port=22, timeout=1.0)
    assert caught.value.code == "ETIMEDOUT"


def test_a_veth_outlives_the_keeper(plugged: Kept, host: Space) -> None:
    """The next keeper has the cell of the gateway, and removes the veth when it is dropped."""
    with space() as instance:
        made = make(plugged)
        plug_in(host, instance, made.name)
        plugged.kill()
        assert instance.python(CONNECT, "203.0.113.7", "443") == "203.0.113.7 443"
        plugged.start()
        assert plugged.status()["cells"] == 1
        assert instance.python(CONNECT, "203.0.113.7", "443") == "203.0.113.7 443"
        plugged.ask("cell.drop", cell=CELL)
        assert list(instance.links()) == ["lo"]
        assert table(host) == ""
        eventually(lambda: started(made.pid) is None, what="the holder to end")


def test_a_veth_outlives_keeper_and_gateway(plugged: Kept, host: Space) -> None:
    """Nothing answers while both are gone; adopted by the process that holds it, the cell is the same, and judged as before."""
    with space() as instance:
        made = make(plugged)
        plug_in(host, instance, made.name)
        gateway = plugged.status()["gateway"]["pid"]
        plugged.kill()
        slay(gateway)
        assert instance.python(CONNECT, "203.0.113.7", "443") == "ConnectionRefusedError"
        plugged.start()
        assert plugged.ask("cell.adopt", cell=CELL, pid=made.pid, started=made.started)["fresh"]
        eventually(lambda: plugged.heard(attach=CELL)[1:], what="the gateway to have the cell again")
        assert instance.python(CONNECT, "2001:db8::7", "443") == "2001:db8::7 443"
        plugged.ask("cell.drop", cell=CELL)
        assert list(instance.links()) == ["lo"]
        assert table(host) == ""


def test_without_its_holder_too_an_instance_has_no_network(plugged: Kept, host: Space) -> None:
    """When keeper, gateway and holder are killed the instance's interface is gone with the cell; what is left is removed."""
    with space() as instance:
        made = make(plugged)
        plug_in(host, instance, made.name)
        gateway = plugged.status()["gateway"]["pid"]
        plugged.kill()
        slay(gateway, made.pid)
        eventually(lambda: list(instance.links()) == ["lo"], what="the interface to go")
        plugged.start()
        with pytest.raises(RequestError) as caught:
            plugged.ask("cell.adopt", cell=CELL, pid=made.pid, started=made.started)
        assert caught.value.code == "absent"
        assert made.name in table(host)
        for _ in range(2):
            remove_left(host, made)
            assert table(host) == ""


def test_what_is_left_is_removed_without_a_keeper(plugged: Kept, host: Space) -> None:
    """Where no keeper comes back, the holder, the veth and the drop rule are removed by their note."""
    made = make(plugged)
    gateway = plugged.status()["gateway"]["pid"]
    plugged.kill()
    slay(gateway)
    assert made.name in host.links()
    remove_left(host, made)
    eventually(lambda: started(made.pid) is None, what="the holder to end")
    assert made.name not in host.links()
    assert table(host) == ""


def test_what_no_keeper_knows_is_removed_by_its_name(plugged: Kept, host: Space) -> None:
    """Where a keeper ended before anyone heard of the cell, the holder, the veth and the drop rule go by the name; another's interface stays."""
    lost = "import sys\nfrom irons_local.cell import veth\nveth.remove_lost(sys.argv[1])"
    made = make(plugged)
    gateway = plugged.status()["gateway"]["pid"]
    plugged.kill()
    slay(gateway)
    for _ in range(2):
        host.python(lost, made.name)
        eventually(lambda: started(made.pid) is None, what="the holder to end")
        assert made.name not in host.links()
        assert table(host) == ""
    host.ok("ip", "link", "add", OUTER, "type", "veth", "peer", "name", "theirs")
    host.python(lost, OUTER)
    assert {OUTER, "theirs"} <= set(host.links())


def test_only_root_makes_one(machine: Machine) -> None:
    """An ordinary user's keeper refuses, in words that say so."""
    machine.require("setpriv", "users", "newuidmap")
    with ordinary_person() as person, keeping(person, machine=machine) as kept:
        with pytest.raises(RequestError, match="root") as caught:
            kept.ask("cell.make", cell=CELL, veth=True)
        assert caught.value.code == "state"


def test_what_the_machine_says_of_the_network_counts_for_nothing(plugged: Kept) -> None:
    """A cell with a veth routes nothing and takes no address, route or redirect from it, whatever the settings of the host."""
    cell = Space(make(plugged).pid)
    inner = ("accept_local", "accept_redirects", "accept_source_route", "route_localnet")
    settings = ["ipv4/ip_forward", "ipv6/conf/all/forwarding", f"ipv6/conf/{layout.INNER}/accept_ra"]
    settings += [f"ipv4/conf/{each}/{name}" for each in ("all", layout.INNER) for name in inner]
    found = {name: cell.ok("cat", f"/proc/sys/net/{name}").strip() for name in settings}
    assert found == dict.fromkeys(settings, "0")
