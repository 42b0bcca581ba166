"""The host's network: own addresses and on-link prefixes, as the kernel has them at that moment."""

from __future__ import annotations

import ast
import os
import shutil
import socket
import struct
import subprocess
import sys
from ipaddress import ip_address, ip_network

import pytest

from irons_local.linux.routes import read_address, read_host_network, read_route
from irons_policy.hostnet import HostNetwork

UNICAST, LOCAL, BROADCAST, ANYCAST, MULTICAST, BLACKHOLE, UNREACHABLE = 1, 2, 3, 4, 5, 6, 7
DST, OIF, GATEWAY, MULTIPATH, VIA = 1, 4, 5, 9, 18


def attribute(kind: int, value: bytes) -> bytes:
    """One netlink attribute, padded."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def route(destination: str, kind: int, *attributes: bytes) -> bytes:
    """One route as rtnetlink spells it."""
    network = ip_network(destination)
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6
    head = struct.pack("=BBBBBBBBI", family, network.prefixlen, 0, 0, 254, 0, 0, kind, 0)
    target = attribute(DST, network.network_address.packed) if network.prefixlen else b""
    return head + target + b"".join(attributes)


def hop(*attributes: bytes) -> bytes:
    """One next hop of a route with several."""
    body = b"".join(attributes)
    return struct.pack("=HBBi", 8 + len(body), 0, 0, 2) + body


VIA_V4 = attribute(GATEWAY, ip_address("192.0.2.1").packed)
VIA_V6 = attribute(VIA, struct.pack("=H", socket.AF_INET6) + ip_address("fe80::1").packed)


@pytest.mark.parametrize(
    ("message", "kind", "network"),
    [
        (route("192.0.2.0/24", UNICAST), "onlink", "192.0.2.0/24"),
        (route("192.0.2.9/32", UNICAST), "onlink", "192.0.2.9/32"),
        (route("192.0.2.255/32", BROADCAST), "onlink", "192.0.2.255/32"),
        (route("2001:db8::/64", UNICAST), "onlink", "2001:db8::/64"),
        (route("10.0.0.0/8", UNICAST), "onlink", "10.0.0.0/8"),
        (route("10.0.0.0/8", UNICAST, VIA_V4), "onlink", None),
        (route("10.0.0.0/8", UNICAST, VIA_V6), "onlink", None),
        (route("0.0.0.0/0", UNICAST), "onlink", None),
        (route("0.0.0.0/0", UNICAST, VIA_V4), "onlink", None),
        (route("128.0.0.0/1", UNICAST), "onlink", None),
        (route("2000::/3", UNICAST), "onlink", None),
        (route("10.9.0.0/16", UNICAST, attribute(MULTIPATH, hop(VIA_V4) + hop(VIA_V6))), "onlink", None),
        (route("10.9.0.0/16", UNICAST, attribute(MULTIPATH, hop(VIA_V4) + hop())), "onlink", "10.9.0.0/16"),
        (route("10.9.0.0/16", BLACKHOLE), "onlink", None),
        (route("2001:db8::/64", UNREACHABLE), "onlink", None),
        (route("ff00::/8", MULTICAST), "onlink", None),
        (route("192.0.2.2/32", LOCAL), "own", "192.0.2.2/32"),
        (route("127.0.0.0/8", LOCAL), "own", "127.0.0.0/8"),
        (route("0.0.0.0/0", LOCAL), "own", "0.0.0.0/0"),
        (route("2001:db8::/128", ANYCAST), "own", "2001:db8::/128"),
    ],
)
def test_a_route_is_read_for_what_it_says(message: bytes, kind: str, network: str | None) -> None:
    """Neighbours are reached without a gateway; a default route, or a tunnel's half of one, makes none."""
    assert read_route(message) == (kind, ip_network(network) if network else None)


@pytest.mark.parametrize(
    ("prefix", "attributes", "own", "link"),
    [
        (24, {1: "192.0.2.2", 2: "192.0.2.2"}, "192.0.2.2", "192.0.2.0/24"),
        (32, {1: "192.0.2.2", 2: "192.0.2.2"}, "192.0.2.2", None),
        (32, {1: "192.0.2.9", 2: "192.0.2.2"}, "192.0.2.2", "192.0.2.9/32"),
        (64, {1: "2001:db8::2"}, "2001:db8::2", "2001:db8::/64"),
        (128, {1: "2001:db8::2"}, "2001:db8::2", None),
    ],
)
def test_an_address_brings_its_prefix_or_its_peer(
    prefix: int, attributes: dict[int, str], own: str, link: str | None
) -> None:
    """An interface's address is own, and its prefix (or the peer at the other end) is on-link, route or no route."""
    family = socket.AF_INET if "." in own else socket.AF_INET6
    message = struct.pack("=BBBBI", family, prefix, 0, 0, 2)
    message += b"".join(attribute(kind, ip_address(text).packed) for kind, text in attributes.items())
    assert read_address(message) == (ip_address(own), ip_network(link) if link else None)


def test_the_ground_of_this_machine_holds_its_loopback() -> None:
    """On the machine the tests run on, loopback is own and the listeners are handed through."""
    listener = (ip_address("127.0.0.1"), 2222)
    host_network = read_host_network([listener])
    assert host_network.is_own(ip_address("127.0.0.1"))
    assert host_network.is_own(ip_address("127.200.0.1"))
    assert host_network.listeners == {listener}
    assert not any(network.prefixlen < 8 for network in host_network.onlink)


PROGRAM = """
import os, subprocess, sys
from irons_local.linux.routes import read_host_network
for line in sys.stdin.read().splitlines():
    subprocess.run(["ip", *line.split()], check=True)
if os.getuid() == 0 and len(sys.argv) > 1:
    os.setgroups([])
    os.setgid(int(sys.argv[1]))
    os.setuid(int(sys.argv[1]))
found = read_host_network()
print([[str(each) for each in part] for part in (found.own, found.onlink, found.own_networks)])
"""

LINKS = """link set lo up
link add far type veth peer name near
link set near up
link set far up
addr add 192.0.2.2/24 dev near
addr add 203.0.113.3 peer 203.0.113.4/32 dev near
-6 addr add 2001:db8:1::2/64 dev near nodad
route add default via 192.0.2.1
route add 198.51.100.0/24 via 192.0.2.1
route add 10.7.0.0/16 dev near table 77
route add local 10.8.0.0/16 dev lo
-6 route add 2001:db8:2::/64 via 2001:db8:1::1
-6 route add 2001:db8:3::/64 dev near table 78
"""


def ground_in_a_namespace(*, drop: bool) -> HostNetwork:
    """Lay out links in a network namespace of the test's own and read the host's network there."""
    ip, unshare = shutil.which("ip"), shutil.which("unshare")
    assert ip is not None
    assert unshare is not None
    enter = [unshare, "--net"] if os.getuid() == 0 else [unshare, "--user", "--map-root-user", "--net"]
    argv = [*enter, sys.executable, "-c", PROGRAM, *(["65534"] if drop and os.getuid() == 0 else [])]
    done = subprocess.run(argv, input=LINKS, capture_output=True, text=True, check=True, timeout=60)
    own, onlink, networks = ast.literal_eval(done.stdout)
    return HostNetwork(
        frozenset(map(ip_address, own)),
        tuple(map(ip_network, onlink)),
        frozenset(),
        tuple(map(ip_network, networks)),
    )


@pytest.mark.needs("networks")
@pytest.mark.parametrize("drop", [False, True])
def test_every_table_counts_and_gateways_do_not(drop: bool) -> None:
    """All routing tables are read, by any user; what is behind a gateway is not on-link, a peer and a prefix are."""
    host_network = ground_in_a_namespace(drop=drop)
    assert {
        ip_address("192.0.2.2"),
        ip_address("203.0.113.3"),
        ip_address("2001:db8:1::2"),
    } <= host_network.own
    onlink = {str(network) for network in host_network.onlink}
    assert {"192.0.2.0/24", "203.0.113.4/32", "10.7.0.0/16", "2001:db8:1::/64", "2001:db8:3::/64"} <= onlink
    for behind in ("198.51.100.7", "2001:db8:2::7", "8.8.8.8", "2600::1"):
        assert not any(ip_address(behind) in network for network in host_network.onlink)
    assert host_network.is_own(ip_address("10.8.3.3"))
    assert not host_network.is_own(ip_address("203.0.113.4"))
