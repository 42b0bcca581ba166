"""Many sandboxes, many people, and clients from elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.e2e.lab import Person, eventually


@pytest.mark.alone
def test_ten_creates_at_once_succeed_and_thirty_sandboxes_run_side_by_side(person: Person) -> None:
    """Creates that overlap don't get in each other's way, and each of many sandboxes is entered and judged by itself."""
    names = [f"many{number}" for number in range(30)]
    with ThreadPoolExecutor(10) as pool:
        done = list(pool.map(lambda name: person.run("create", name, timeout=180), names))
        assert [answer.returncode for answer in done] == [0] * 30, [
            answer.stderr for answer in done if answer.returncode
        ]
        states = {row["name"]: row["status"] for row in json.loads(person.ok("list", "-o", "json"))}
        assert {states[name] for name in names} == {"ready"}
        script = "hostname; curl -s -o /dev/null -m 60 http://$(hostname).example.test/"
        said = list(pool.map(lambda name: person.inside(name, script).stdout, names))
    assert said == [f"{name}\n" for name in names]
    assert [event["host"] for event in person.events(names[7])] == [f"{names[7]}.example.test"]
    person.ok("destroy", *names, "--force", timeout=180)


@pytest.fixture(scope="module")
def other(make_person: Callable[..., Person]) -> Person:
    """Someone else on the same machine."""
    return make_person()


def test_two_people_side_by_side_do_not_see_each_other(other: Person, person: Person) -> None:
    """Each has a daemon, sandboxes and rules of their own."""
    other.ok("create", "theirs", timeout=180)
    other.ok("egress", "allow", "other.example.test")
    assert "theirs" not in person.ok("list", "-q")
    assert "other.example.test" not in person.ok("egress", "list")
    assert other.inside("theirs", "id -un").stdout == "irons\n"
    other.ok("destroy", "theirs", "--force")


def test_a_client_in_another_network_namespace_reaches_it_by_tls_and_key(other: Person) -> None:
    """With `--listen`, TLS and a key the same commands work from another machine; without a key they don't."""
    served = other
    certificate, key = served.lab.directory / "listen.pem", served.lab.directory / "listen.key"
    words = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=irons"
    )
    made = [
        *words.split(),
        "-addext",
        "subjectAltName=IP:198.51.100.2",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run(made, check=True, capture_output=True)
    refused = served.run("local", "up", "--listen", "198.51.100.2:7411")
    assert refused.returncode == 2
    listen = ["--listen", "198.51.100.2:7411", "--tls-cert", str(certificate), "--tls-key", str(key)]
    served.ok("local", "up", *listen, "--ssh-listen", "198.51.100.2")
    token = json.loads(served.ok("local", "key", "create", "elsewhere", "-o", "json"))["key"]

    def elsewhere(*words: str, api_key: str = token) -> subprocess.CompletedProcess[str]:
        env = {**served.env, "IRONS_API_URL": "https://198.51.100.2:7411", "SSL_CERT_FILE": str(certificate)}
        return subprocess.run(
            ["nsenter", "-t", str(served.lab.internet), "-n", "--", sys.executable, "-m", "irons", *words],
            env={**env, "IRONS_API_KEY": api_key},
            cwd=served.home,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=180,
            check=False,
        )

    assert elsewhere("list", api_key="wrong").returncode == 4
    created = elsewhere("create", "far", "--mode", "deny")
    assert created.returncode == 0, created.stderr
    ran = elsewhere("exec", "far", "--", "id", "-un")
    assert ran.stdout == "irons\n", ran.stderr
    ran = elsewhere("run", "-o", "json", "--", "id", "-un")
    assert json.loads(ran.stdout)["stdout"] == "irons\n", ran.stderr
    assert served.ok("list", "-q") == "far\n"
    rows = {row["process"]: row["listens"] for row in json.loads(served.ok("local", "status", "-o", "json"))}
    assert "https://198.51.100.2:7411" in rows["server"]
    served.ok("local", "key", "revoke", "elsewhere")
    assert elsewhere("list").returncode == 4
    served.ok("destroy", "far", "--force")


FLOOD = r"""
    use IO::Socket::INET; my @held; $| = 1; $SIG{PIPE} = "IGNORE";
    my $dns = IO::Socket::INET->new(PeerAddr => "100.64.0.1", PeerPort => 53, Proto => "udp");
    $dns->send(substr(pack("n6", $_, 256, 1, 0, 0, 0) . pack("C*", map { $_ * 7 % 256 } $_ .. $_ + 40), 0, $_ % 50)) for 1 .. 2000;
    for my $port (443, 80) {
        for (1 .. 60) {
            my $s = IO::Socket::INET->new(PeerAddr => "203.0.113.10", PeerPort => $port) or next;
            print $s $port == 443 ? "\x16\x03\x01\x00\x20" . chr($_) x 40 : "GET / HTTP/1.1\r\nHost: \x01$_\r\n\r\n"; push @held, $s;
        }
    }
    for my $wave (900, 600) {
        for (1 .. $wave) { push @held, IO::Socket::INET->new(PeerAddr => "203.0.113.10", PeerPort => 443) // () }
        sleep 3;
    }
    print "ready\n"; <STDIN>;
"""
"""Connections that never say a word, and malformed DNS, TLS and HTTP; held until its input ends.

Those that wait and those that they wait for have the same time: a second wave comes later, so that it waits for the rest of the first.
"""


@pytest.mark.alone
def test_what_one_sandbox_floods_the_gateway_with_others_do_not_notice(person: Person, sandbox: str) -> None:
    """Half-open connections beyond the cap wait and are refused, as malformed input is; another sandbox is served, and then the first again."""

    def reasons() -> set[str]:
        return {event["reason"] for event in person.events(sandbox) if event["verdict"] == "blocked"}

    def refused(words: str) -> bool:
        return any(words in reason for reason in reasons())

    request = "curl -s -o /dev/null -w '%{http_code} ' -m 60 http://web.example.test/"
    person.ok("create", "calm", timeout=180)
    try:
        words = ("exec", sandbox, "--", "perl", "-e", FLOOD)
        with person.start(*words, stdin=subprocess.PIPE) as flood:
            assert flood.stdout is not None
            assert flood.stdout.readline() == "ready\n"
            assert person.inside("calm", "; ".join([request] * 5)).stdout.split() == ["200"] * 5
            eventually(lambda: refused("have not got anywhere yet"), what="those that waited to be refused")
            flood.communicate(timeout=180)
        assert [event["verdict"] for event in person.events("calm")] == ["warn"] * 5
        eventually(lambda: person.inside(sandbox, request).stdout == "200 ", what="a way out again")
        assert refused("malformed ClientHello"), reasons()
        assert refused("malformed request")
    finally:
        person.run("destroy", "calm", "--force", timeout=180)
