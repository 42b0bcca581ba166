"""What a program in a sandbox meets: allowed names work in any protocol, refusals are quick and legible."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator

import pytest

from tests.e2e.attempts import TALK
from tests.e2e.conftest import clear_policy
from tests.e2e.lab import Person, eventually

POSTGRES = r"\000\000\000\010\004\322\026\057"
"""Its SSLRequest."""


@pytest.fixture(scope="module")
def working(person: Person) -> Iterator[str]:
    """A locked sandbox whose allow list has a few names and ports."""
    clear_policy(person)
    person.ok("create", "working", "--mode", "deny", "--allow", "web.example.test", timeout=180)
    person.ok(
        "egress",
        "allow",
        "--sandbox",
        "working",
        "git.example.test:22",
        "mail.example.test:25",
        "db.example.test:5432",
        "six.example.test",
    )
    assert person.inside("working", TALK).returncode == 0
    yield "working"
    person.run("destroy", "working", "--force", timeout=180)


def test_http_and_https_to_an_allowed_name_work(person: Person, working: str) -> None:
    """Requests arrive as they were sent."""
    for url in ("http://web.example.test/plain", "-k https://web.example.test/tls"):
        done = person.inside(working, f"curl -sS -m 60 {url}")
        assert json.loads(done.stdout)["host"] == "web.example.test", done.stderr


def test_a_name_with_an_ipv6_address_alone_is_reached(person: Person, working: str) -> None:
    """The host's side dials IPv6 where that is what a name has."""
    done = person.inside(working, "curl -sS -m 60 http://six.example.test/")
    assert json.loads(done.stdout)["server"] == "2001:db8:113::10", done.stderr


def test_a_server_that_speaks_first_is_heard(person: Person, working: str) -> None:
    """SMTP's banner comes through, and what follows goes both ways."""
    done = person.inside(working, "echo hello | talk mail.example.test 25 hello")
    assert done.stdout == "220 mail.example.test ESMTP\r\nhello\n".replace("\r", ""), done.stderr


def test_ssh_to_an_allowed_name_works(person: Person, working: str) -> None:
    """A real OpenSSH client inside reaches a real OpenSSH server outside."""
    key = (person.lab.directory / "internet_key").read_text()
    script = (
        f"umask 077; cat > key <<'END'\n{key}END\n"
        "ssh -i key -o StrictHostKeyChecking=no -o ConnectTimeout=60 root@git.example.test echo from the other side"
    )
    assert person.inside(working, script).stdout == "from the other side\n"


def test_git_clones_from_an_allowed_name(person: Person, working: str) -> None:
    """Git over HTTP to an allowed name works; to another it fails with a word about why."""
    cloned = person.inside(working, "git clone -q http://web.example.test/repo.git && cat repo/README")
    assert cloned.stdout == "hello from the repository\n", cloned.stderr
    refused = person.inside(working, "git clone -q http://evil.example.test/repo.git evil 2>&1")
    assert "403" in refused.stdout


def test_quic_is_refused_at_once_and_the_same_client_works_over_tcp(person: Person, working: str) -> None:
    """A client that tries UDP first is refused within 100 ms, falls back to TCP and is served."""
    client = """
        use IO::Socket::INET; use Time::HiRes "time"; my @to = (PeerAddr => "web.example.test");
        my $began = time;
        my $udp = IO::Socket::INET->new(@to, PeerPort => 443, Proto => "udp");
        my $sent = $udp && $udp->send("x") && ($udp->recv(my $got, 100), defined $got && length $got);
        printf "%s %d ", $sent ? "answered" : "refused", (time - $began) * 1000;
        my $tcp = IO::Socket::INET->new(@to, PeerPort => 80, Proto => "tcp");
        print $tcp "GET / HTTP/1.1\\r\\nHost: web.example.test\\r\\n\\r\\n"; print scalar <$tcp>;
    """

    def attempt() -> int:
        outcome, milliseconds, *answer = person.inside(working, f"perl -e '{client}'").stdout.split()
        assert outcome == "refused"
        assert answer == ["HTTP/1.1", "200", "OK"]
        return int(milliseconds)

    # A machine that is busy or stands still only adds to some of them.
    assert any(attempt() < 100 for _ in range(20))
    assert person.inside(working, "curl -sk -m 60 https://web.example.test/").returncode == 0


def test_a_client_that_speaks_first_is_heard(person: Person, working: str) -> None:
    """A Postgres-like start works on its own port."""
    script = f"printf '{POSTGRES}' | talk db.example.test 5432 N"
    assert person.inside(working, script).stdout.startswith("N")


def milliseconds(person: Person, sandbox: str, script: str, shown: str) -> int:
    """How long a script takes in a sandbox, which says what is expected."""
    timed = f"a=$(date +%s%N); bash -c {shlex.quote(script)} 2>&1 </dev/null; b=$(date +%s%N)"
    said = person.inside(sandbox, f"{timed}; echo; echo took $(( (b - a) / 1000000 ))").stdout
    assert re.search(shown, said, re.IGNORECASE), said
    return int(said.split("took ")[1])


@pytest.mark.parametrize(
    ("script", "shown"),
    [
        ("curl -sS -m 60 http://evil.example.test/", "evil.example.test"),
        ("curl -sSk -m 60 https://evil.example.test/", "alert"),
        ("ssh -o StrictHostKeyChecking=no -o BatchMode=yes root@evil.example.test", "closed|reset"),
        ("git clone -q http://evil.example.test/repo.git /tmp/refused", "403"),
        ("git clone -q -c http.sslVerify=no https://evil.example.test/repo.git /tmp/refused", "denied"),
        (f"printf '{POSTGRES}' | talk evil.example.test 5432; echo over", "over"),
        ("exec 3<>/dev/tcp/mail.example.test/26; cat <&3; echo over", "over"),
        ("echo x | talk web.example.test 9999; echo over", "over"),
        ("echo x | talk -u evil.example.test 443", "not permitted|refused"),
    ],
)
def test_a_refusal_is_quick_and_legible(person: Person, working: str, script: str, shown: str) -> None:
    """A refused program fails at once, and never hangs."""
    # A machine that is busy or stands still only makes some of them slower.
    assert any(milliseconds(person, working, script, shown) < 2000 for _ in range(20))


def test_the_sandbox_tells_its_agent_what_it_may_do(person: Person, working: str) -> None:
    """http://irons.internal/ answers with the policy and the last refusals."""
    person.inside(working, "curl -s -m 60 http://evil.example.test/")
    told = json.loads(person.inside(working, "curl -sS -m 60 http://irons.internal/").stdout)
    assert told["mode"] == "deny"
    assert "evil.example.test" in json.dumps(told)


def test_rules_change_running_sandboxes_at_once(person: Person, working: str) -> None:
    """A name allowed works for the very next request, and one removed no more."""
    assert (
        "403"
        in person.inside(
            working, "curl -s -o /dev/null -w '%{http_code}' -m 60 http://other.example.test/"
        ).stdout
    )
    person.ok("egress", "allow", "--sandbox", working, "other.example.test")
    assert (
        "200"
        in person.inside(
            working, "curl -s -o /dev/null -w '%{http_code}' -m 60 http://other.example.test/"
        ).stdout
    )
    person.ok("egress", "remove", "--sandbox", working, "other.example.test")
    assert (
        "403"
        in person.inside(
            working, "curl -s -o /dev/null -w '%{http_code}' -m 60 http://other.example.test/"
        ).stdout
    )


def test_a_live_connection_that_becomes_forbidden_is_cut(person: Person, working: str) -> None:
    """Removing a rule ends the connections that needed it; their number is printed before, and by a dry run that ends none."""
    person.ok("egress", "allow", "--sandbox", working, "files.example.test:9418")
    script = "exec 3<>/dev/tcp/files.example.test/9418; echo hi >&3; cat <&3; echo over"
    before = len(person.lab.arrived(kind="tcp", port=9418))
    with person.start("exec", working, "--", "bash", "-c", script) as session:
        eventually(lambda: len(person.lab.arrived(kind="tcp", port=9418)) > before, what="the connection")
        policy = person.home / "tighter.toml"
        policy.write_text('mode = "deny"\n[allow]\n"web.example.test" = ""\n')
        for words in (("apply", str(policy), "--dry-run"), ("remove", "files.example.test:9418")):
            assert session.poll() is None
            said = person.run("egress", *words, "--sandbox", working)
            assert said.returncode == 0, said.stderr
            assert "this cuts 1 live connection" in said.stderr
        out, _ = session.communicate(timeout=180)
    assert "over" in out

    def ended() -> list[str]:
        return [
            event["ended"] for event in person.events(working) if event["port"] == 9418 and event["ended"]
        ]

    (why,) = eventually(ended, what="the closing record")
    assert "rule" in why or "allow" in why
