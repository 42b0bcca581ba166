"""Each process of the backend is killed: nothing passes unjudged, sandboxes and sessions live on, no event is lost or doubled."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from functools import partial
from typing import Any

import httpx
import pytest

from irons_local.linux.namespaces import birth
from tests.e2e.lab import Person, eventually
from tests.local.people import slay

BACK_WITHIN = 3.0
"""Seconds after which all is served again, with no one doing anything."""
TRIES = 10
"""How often that is tried where it took longer."""

SQUAT = """perl -MIO::Socket::INET -e '$| = 1;
  my $s = IO::Socket::INET->new(LocalPort => 15001, Listen => 5, ReuseAddr => 1) or die "not taken: $!\\n";
  print "taken\\n"; print "caught ", $_->peerhost, "\\n" while $_ = $s->accept'"""


def pids(person: Person) -> dict[str, int]:
    """The backend's processes by name; of the gateway the worker that serves most sandboxes."""

    def started() -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = json.loads(person.ok("local", "status", "-o", "json"))
        return rows if all(row["pid"] for row in rows if row["process"] == "gateway") else []

    rows = eventually(started, what="every worker to be there")
    rows.sort(key=lambda row: row["sandboxes"] or 0)
    return {row["process"]: row["pid"] for row in rows if row["pid"] and row["process"] != "nursery"}


class Session:
    """A shell in a sandbox over one `irons ssh`, in which things are done without another command of irons."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._in, self._out = process.stdin, process.stdout
        self.asked: list[int] = []

    def begin(self, script: str) -> None:
        """Start a script; `end` gives what it says."""
        self._in.write(f"{script}\necho '::end'\n")
        self._in.flush()

    def end(self) -> str:
        """What the script printed."""
        said = ""
        while (line := self._out.readline()) != "::end\n":
            assert line, "the session ended"
            said += line
        return said

    def do(self, script: str) -> str:
        """Run a script, and give what it says."""
        self.begin(script)
        return self.end()

    def begin_request(self, within: int = 60) -> None:
        """Start a request to an address that no one asked for yet: the attempt can be distinguished from every other one.

        Args:
            within: seconds that it may take.
        """
        self.asked.append(100 + len(self.asked))
        assert self.asked[-1] < 255, "there are no more addresses"
        address = f"203.0.113.{self.asked[-1]}"
        self.begin(f"curl -s -o /dev/null -m {within} -w '%{{http_code}}\\n' http://{address}/ </dev/null")

    def request(self, within: int = 60) -> str:
        """Make a request and give its status, 000 where there is no answer."""
        self.begin_request(within)
        return self.end().strip()

    def until_answered(self, answers: list[str]) -> None:
        """Add the statuses of requests to these, until one is answered."""
        pause = 0.1
        while answers[-1:] != ["200"]:
            # Refused at once, they would have used up all addresses within a moment.
            self.do(f"sleep {pause}")
            pause *= 1.1
            answers.append(self.request())


@contextmanager
def session(person: Person, sandbox: str) -> Iterator[Session]:
    """A session in a sandbox."""
    with person.start("ssh", sandbox, "--", "sh", stdin=subprocess.PIPE) as process:
        made = Session(process)
        assert made.do("echo ready") == "ready\n"
        yield made
        # It lived through everything, and ends as a session does.
        assert made.do("echo still here") == "still here\n"
        process.communicate(timeout=180)
        assert process.returncode == 0


def api_answers(person: Person) -> bool:
    """Whether the control plane serves right now; unlike a command this brings nothing up."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        try:
            sock.connect(str(person.home / "run/irons/api.sock"))
            sock.sendall(b"GET /version HTTP/1.1\r\nHost: irons\r\nConnection: close\r\n\r\n")
            return sock.recv(12) == b"HTTP/1.1 200"
        except OSError:
            return False


def seen_since(person: Person, mark: int) -> list[str]:
    """The addresses at which connections arrived after the first `mark` arrivals."""
    return [seen["server"] for seen in person.lab.arrivals()[mark:] if seen["kind"] == "connect"]


def assert_recorded_once(person: Person, sandbox: str, mark: int, answered: int) -> None:
    """Every contact has its event, no attempt has two, and as many as were answered are there."""
    arrived = [address for address in seen_since(person, mark) if address.startswith("203.0.113.")]

    def attempts() -> list[dict[str, Any]]:
        # What was refused while there was no gateway for a while is counted in one event that is of no attempt.
        return [event for event in person.events(sandbox) if event["host"] != "*"]

    def recorded() -> Counter[str]:
        return Counter(event["host"] for event in attempts())

    eventually(lambda: set(arrived) <= set(recorded()), what="the events")

    def going_on() -> list[dict[str, Any]]:
        return [event for event in attempts() if not event["ended"]]

    with suppress(AssertionError):
        eventually(lambda: not going_on(), what="the last of them to end")
    assert going_on() == []
    events = person.events(sandbox)
    assert len({event["id"] for event in events}) == len(events)
    assert max(recorded().values()) == 1
    assert len(recorded()) >= answered


@pytest.mark.parametrize("victims", [("gateway",), ("server",), ("gateway", "server")], ids="+".join)
def test_what_was_killed_is_back_with_nobody_doing_anything(
    person: Person, sandbox: str, victims: tuple[str, ...]
) -> None:
    """After kill -9 all is served again by itself, sessions live on, and each attempt, also one under way, has one event."""
    mark = len(person.lab.arrivals())
    before = pids(person)
    with session(person, sandbox) as inside:
        answers = [inside.request()]
        # A machine that is busy with something else, or stands still, makes some of them late.
        assert is_soon_back(person, lambda: killed_and_back(person, inside, victims, answers))
        if "gateway" not in victims:
            assert set(answers) == {"200"}
        answers += [inside.request(), inside.request()]
        assert answers[-2:] == ["200", "200"]
    after = pids(person)
    assert {name for name in before if after[name] != before[name]} == set(victims)
    assert_recorded_once(person, sandbox, mark, answers.count("200"))


def is_soon_back(person: Person, tried: Callable[[], float]) -> bool:
    """Tell whether one of several tries took less than `BACK_WITHIN`, or, on a busy machine, no longer than a few commands."""
    for _ in range(TRIES):
        took, began = tried(), time.monotonic()
        person.ok("local", "status")
        if took < max(BACK_WITHIN, 4 * (time.monotonic() - began)):
            return True
        # What ends again and again comes back later by design.
        eventually(lambda: is_settled(person), what="what was started to have lived for a while")
    return False


def killed_and_back(person: Person, inside: Session, victims: tuple[str, ...], answers: list[str]) -> float:
    """Kill processes while a request is under way; gives the seconds until both requests and the API are answered again."""
    running = pids(person)
    inside.begin_request()
    for victim in victims:
        os.kill(running[victim], signal.SIGKILL)
    killed = time.monotonic()
    answers.append(inside.end().strip())
    inside.until_answered(answers)
    eventually(lambda: api_answers(person), what="the API to answer")
    return time.monotonic() - killed


def test_without_a_keeper_all_goes_on_and_the_next_command_brings_it_back(
    person: Person, sandbox: str
) -> None:
    """A killed keeper is missed by no one: requests, API and session go on, and the next keeper takes over what runs."""
    mark = len(person.lab.arrivals())
    before = pids(person)
    with session(person, sandbox) as inside:
        inside.begin_request()
        os.kill(before["keeper"], signal.SIGKILL)
        assert inside.end().strip() == "200"
        assert inside.request() == "200"
        assert api_answers(person)
        person.ok("list")
        after = pids(person)
        assert after["keeper"] != before["keeper"]
        assert (after["gateway"], after["server"]) == (before["gateway"], before["server"])
        # What was taken over is looked after as before.
        os.kill(after["gateway"], signal.SIGKILL)
        inside.until_answered([])
    assert_recorded_once(person, sandbox, mark, 3)


def test_with_all_three_killed_nothing_passes_until_the_next_command(person: Person, sandbox: str) -> None:
    """Nothing leaves the sandbox, whoever sits on the gateway's ports gets nothing, and one command later all is as it was."""
    mark = len(person.lab.arrivals())
    before = pids(person)
    with session(person, sandbox) as inside:
        assert inside.request() == "200"
        slay(*(before[name] for name in ("keeper", "gateway", "server")))
        assert not api_answers(person)
        dark = len(person.lab.arrivals())
        assert [inside.request(within=5) for _ in range(3)] == ["000"] * 3
        inside.do(f"{SQUAT} >/tmp/squat 2>&1 </dev/null &")
        eventually(lambda: inside.do("cat /tmp/squat") == "taken\n", what="the squatter to have the port")
        assert inside.request(within=5) == "000"
        assert inside.do("timeout 3 perl -MSocket -e 'gethostbyname(\"web.example.test\") and print 1'") == ""
        assert person.lab.arrivals()[dark:] == []
        person.ok("list")
        eventually(lambda: inside.request() == "200", what="the gateway to be back")
        assert inside.do("cat /tmp/squat; pkill perl") == "taken\n"
    assert_recorded_once(person, sandbox, mark, 2)


def test_nothing_passes_while_the_gateway_is_held_and_its_ports_cannot_be_taken(
    person: Person, sandbox: str
) -> None:
    """Held down, the gateway lets nothing through, and a process inside that wants its ports gets nowhere."""
    gateway = pids(person)["gateway"]
    mark = len(person.lab.arrivals())
    with session(person, sandbox) as inside:
        os.kill(gateway, signal.SIGSTOP)
        try:
            inside.do("curl -s -m 1 http://203.0.113.99/ </dev/null")
            assert person.lab.arrivals()[mark:] == []
            assert "not taken" in inside.do(f"{SQUAT} 2>&1 </dev/null")
            squat = "perl -MIO::Socket::INET -e 'for $p (15001, 53) { print IO::Socket::INET->new(LocalPort => $p, Listen => 1) ? 1 : 0 }'"
            assert inside.do(f"{squat} </dev/null; echo") == "00\n"
        finally:
            os.kill(gateway, signal.SIGKILL)
        inside.until_answered([])


def test_a_gateway_that_hangs_is_replaced_with_nobody_doing_anything(person: Person, sandbox: str) -> None:
    """While it hangs nothing passes; once the keeper has noticed, all is served again, and each attempt has one event."""
    mark = len(person.lab.arrivals())
    with session(person, sandbox) as inside:
        answers = [inside.request()]
        # A machine that is busy with something else, or stands still, makes some of them late.
        assert is_soon_back(person, lambda: hung_and_back(person, inside, answers))
    assert_recorded_once(person, sandbox, mark, answers.count("200"))


def hung_and_back(person: Person, inside: Session, answers: list[str]) -> float:
    """Have the gateway hang while a request is under way; the seconds from its end until one is answered again."""
    gateway, held = pids(person)["gateway"], len(person.lab.arrivals())
    os.kill(gateway, signal.SIGSTOP)
    inside.begin_request()
    # It is a zombie, and the next one may be there, before its parent has noticed.
    while (arrived := person.lab.arrivals()[held:]) == [] and birth(gateway) is not None:
        pass
    assert arrived == [] or birth(gateway) is None
    noticed = time.monotonic()
    answers.append(inside.end().strip())
    inside.until_answered(answers)
    assert pids(person)["gateway"] != gateway
    return time.monotonic() - noticed


@pytest.fixture
def apart(make_person: Callable[..., Person]) -> Iterator[tuple[Person, str, str]]:
    """Someone whose gateway has two workers, and a sandbox in each of them."""
    person = make_person(config="[local]\ngateway_workers = 2\n")
    for name in ("one", "two"):
        person.ok("create", name, timeout=180)
    yield person, "one", "two"
    person.ok("destroy", "one", "two", "--force", timeout=180)
    person.ok("local", "down")


def worker_of(person: Person, sandbox: str) -> int:
    """The process of the worker that serves a sandbox."""
    identity = json.loads(person.ok("status", sandbox, "-o", "json"))["id"]
    (pid,) = [each["pid"] for each in keepers_status(person)["gateways"] if identity in each["cells"]]
    return int(pid)


def keepers_status(person: Person) -> dict[str, Any]:
    """What the keeper says of the others."""
    with httpx.Client(
        transport=httpx.HTTPTransport(uds=str(person.home / "run/irons/api.sock"), verify=False),
        base_url="http://irons",
    ) as client:
        status: dict[str, Any] = client.get("/status", timeout=60).json()["keeper"]
        return status


def is_settled(person: Person) -> bool:
    """Whether none of them has ended within the last seconds."""
    status = keepers_status(person)
    return not any(each["failures"] for each in (*status["gateways"], status["server"]))


WITHOUT_PAUSE = """i=0; while [ ! -e /tmp/enough ]; do
  curl -s -o /dev/null -m 60 -w '%{http_code}\\n' http://203.0.113.77/; done </dev/null >/tmp/codes 2>&1 &"""


def answered(session: Session) -> int:
    """How many requests have been answered of those that are made without a pause."""
    return int(session.do("wc -l </tmp/codes"))


def has_answered(session: Session, least: int) -> bool:
    """Tell whether so many of them have been answered."""
    return answered(session) >= least


def test_what_happens_to_one_worker_touches_its_own_sandboxes_only(apart: tuple[Person, str, str]) -> None:
    """While one worker is killed, and then hangs, no request of a sandbox of the other one fails, and its worker stays."""
    person, one, two = apart
    stays = worker_of(person, two)
    rows = json.loads(person.ok("local", "status", "-o", "json"))
    shown = [
        (row["worker"], row["sandboxes"], row["failures"]) for row in rows if row["process"] == "gateway"
    ]
    assert shown == [(0, 1, 0), (1, 1, 0)]
    assert all(row["memory"] for row in rows)
    with session(person, one) as inside, session(person, two) as beside:
        beside.do(WITHOUT_PAUSE)
        for number in (signal.SIGKILL, signal.SIGSTOP):
            killed = worker_of(person, one)
            assert killed != stays
            before = answered(beside)
            os.kill(killed, number)
            inside.until_answered([])
            assert birth(killed) is None
            # One was under way when it happened, and another one was made after it.
            eventually(partial(has_answered, beside, before + 2), what="requests beside it")
        eventually(partial(has_answered, beside, 50), what="more of them")
        codes = beside.do("touch /tmp/enough; wait; sort /tmp/codes | uniq -c").split()
    assert codes[1:] == ["200"]
    assert worker_of(person, two) == stays


def test_a_worker_that_hangs_makes_no_change_look_done(apart: tuple[Person, str, str]) -> None:
    """A rule that its sandbox's worker has not heard of is answered only once a worker has it; others' changes are answered before that."""
    person, one, two = apart
    with session(person, one) as inside:
        assert inside.request() == "200"
        stopped = worker_of(person, one)
        os.kill(stopped, signal.SIGSTOP)
        with person.start("egress", "mode", "deny", "--sandbox", one) as changing:
            while changing.poll() is None and birth(stopped) is not None:
                person.ok("egress", "allow", "--sandbox", two, "web.example.test")
            # The worker went first.
            assert birth(stopped) is None
            assert changing.wait(timeout=180) == 0
        mark = len(person.lab.arrivals())
        assert inside.request() in ("403", "000")
        assert seen_since(person, mark) == []


@pytest.mark.parametrize(("host", "port"), [("203.0.113.66", 9999), ("db.example.test", 5432)])
def test_connect_and_close_has_its_event_before_anything_leaves(
    person: Person, sandbox: str, host: str, port: int
) -> None:
    """A connection without a byte is one event, in `warn` too, and it is older than anything that the internet or its DNS saw of it."""
    mark = len(person.lab.arrivals())
    with session(person, sandbox) as inside:
        connect = f'IO::Socket::INET->new(PeerAddr => "{host}", PeerPort => {port}) and print "connected\\n"'
        assert inside.do(f"perl -MIO::Socket::INET -e '{connect}' </dev/null") == "connected\n"
        (event,) = eventually(
            lambda: [e for e in person.events(sandbox) if e["host"] == host and e["ended"]], what="the event"
        )
    assert event["port"] == port
    assert event["count"] == 1
    begun = datetime.fromisoformat(event["time"]).timestamp()
    for seen in person.lab.arrivals()[mark:]:
        assert begun <= seen["at"], seen
