"""How soon a question is on the screen, an answer is at the program, and a refusal comes where no one watches.

    python -m bench.ask [--questions N] [--refusals N] [--flood N] [--programs N]

The screen is `irons ask --stay` in a pseudo-terminal, the answer is a key pressed there, and the connections are made in the sandboxes' networks;
all are timed by one clock. Refusals are those of two sandboxes by turns, one in mode `ask`, one in `deny`. The program behind a question is that of one
connection, asked of the keeper again and again. Last, one sandbox tries ever more
hosts while another one's questions come and its allowed requests go on. Ends with 1 where a bar is missed.
"""

from __future__ import annotations

import argparse
import os
import pty
import select
import socket
import statistics
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from bench.lab.measure import Spread, connect, verdict
from bench.lab.stage import Stage, stage

from irons_local.ipc.keeper_requests import FindProgram
from irons_local.ipc.link import Link
from irons_local.ipc.messages import call_of

ASKING, DENYING, FLOODING = "bench-ask", "bench-deny", "bench-flood"
PORT = 80
ALLOWED, OTHER = "web.example.test", "other.example.test"
SETTLED = 0.7
"""Seconds after which a key answers what is drawn."""
WITHIN = 30.0
GET = b"GET /hello HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n"
FLOOD = """
import socket, sys
addresses = sys.stdin.read().split()
count, held = int(sys.argv[1]), []
for number in range(count):
    sock = socket.socket()
    sock.setblocking(False)
    sock.connect_ex((addresses[number % len(addresses)], 8000 + number // len(addresses)))
    held.append(sock)
    if len(held) > 500:
        held.pop(0).close()
"""


class Pane:
    """`irons ask --stay` on a terminal.

    Attributes:
        master: the terminal's other end.
    """

    def __init__(self, master: int) -> None:
        self.master = master
        self._text = b""

    def until(self, shown: str) -> float:
        """Read until something is on the screen that was not before the last `forget`; return when it was.

        Raises:
            SystemExit: it never was.
        """
        deadline = time.monotonic() + WITHIN
        while time.monotonic() < deadline:
            ready, _, _ = select.select([self.master], [], [], 0.1)
            if ready:
                self._text += os.read(self.master, 1 << 16)
                if shown.encode() in self._text:
                    return time.monotonic()
        raise SystemExit(f"{shown!r} never was on the screen")

    def forget(self) -> None:
        """What has been on the screen does not count any more."""
        self._text = b""

    def press(self, key: str) -> float:
        """Press a key; return when it was."""
        now = time.monotonic()
        os.write(self.master, key.encode())
        return now


@contextmanager
def pane(on: Stage) -> Iterator[Pane]:
    """Show the questions on a terminal until the end."""
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (50, 100))
    try:
        with on.person.start("ask", "--stay", stdin=slave, stdout=slave, stderr=slave) as process:
            os.close(slave)
            try:
                yield Pane(master)
            finally:
                process.kill()
    finally:
        os.close(master)


class Attempt:
    """A request on its way.

    Attributes:
        began: when connect(2) was called.
    """

    def __init__(self, process: int, address: str, host: str) -> None:
        self.began = time.monotonic()
        self._sock = connect(process, address, PORT, WITHIN)
        self._sock.sendall(GET % host.encode())

    def answer(self) -> tuple[float, bytes]:
        """Wait for the first bytes of the answer; return when they came, and them."""
        with closing(self._sock):
            found = self._sock.recv(64)
            return time.monotonic(), found


def resolved(on: Stage, sandbox: str, names: Sequence[str]) -> dict[str, str]:
    """The addresses that a sandbox's name server gives names."""
    found: dict[str, str] = {}
    for first in range(0, len(names), 200):
        some = " ".join(names[first : first + 200])
        rows = on.person.inside(sandbox, f"getent ahostsv4 {some} | grep STREAM").stdout
        found |= {line.split()[2]: line.split()[0] for line in rows.splitlines()}
    return found


def watched(on: Stage, *, wanted: bool) -> None:
    """Wait until someone counts as watching, or no one does."""
    deadline = time.monotonic() + WITHIN
    with on.api() as api:
        while api.get("/questions").json()["watched"] is not wanted:
            if time.monotonic() > deadline:
                raise SystemExit("who watches did not change")
            time.sleep(0.05)
    # What the gateway was last told lasts so long.
    time.sleep(0.0 if wanted else 4.0)


def questions(on: Stage, count: int) -> bool:
    """From a connection to its question, and from a key to the program's first byte."""
    address, process = resolved(on, ASKING, [OTHER])[OTHER], on.init_of(ASKING)
    shown, answered = [], []
    with pane(on) as screen:
        watched(on, wanted=True)
        for _ in range(count):
            screen.until("nothing is asked")
            screen.forget()
            attempt = Attempt(process, address, OTHER)
            shown.append((screen.until(f"> {OTHER}:") - attempt.began) * 1000)
            time.sleep(SETTLED)
            screen.forget()
            pressed = screen.press("o")
            at, answer = attempt.answer()
            if not answer.startswith(b"HTTP/1.1 200"):
                raise SystemExit(f"it was not let pass: {answer!r}")
            answered.append((at - pressed) * 1000)
    print(f"\nms; {count} questions{'p50':>40}{'p99':>8}{'max':>8}")
    met = []
    for what, values, bar in (
        ("connect to question on screen", shown, 100.0),
        ("key to first byte", answered, 50.0),
    ):
        spread = Spread.of(values)
        print(f"  {what:<50}{spread.median:>8.1f}{spread.p99:>8.1f}{spread.most:>8.1f}")
        met.append(verdict(f"{what} at p99", spread.p99, bar, unit=" ms"))
    return all(met)


def refusals(on: Stage, count: int) -> bool:
    """How long a refusal takes in `ask` where no one watches, next to `deny`, by turns."""
    watched(on, wanted=False)
    host = "refused.example.test"
    where = {name: (on.init_of(name), resolved(on, name, [host])[host]) for name in (ASKING, DENYING)}
    took: dict[str, list[float]] = {name: [] for name in where}
    for _ in range(count):
        for name, (process, address) in where.items():
            attempt = Attempt(process, address, host)
            at, answer = attempt.answer()
            if not answer.startswith(b"HTTP/1.1 403"):
                raise SystemExit(f"{name} was not refused: {answer!r}")
            took[name].append((at - attempt.began) * 1000)
    medians = {name: statistics.median(row) for name, row in took.items()}
    print(f"\nrefusal at p50, ms: ask {medians[ASKING]:.2f}, deny {medians[DENYING]:.2f}")
    longer = medians[ASKING] - medians[DENYING]
    return verdict("no one watches: refusal longer than in deny at p50", longer, 1.0, unit=" ms")


def programs(on: Stage, count: int) -> bool:
    """From the control plane's request to the program that holds a connection in a sandbox."""
    holds = f"while :; do exec 3<>/dev/tcp/{ALLOWED}/{PORT}; sleep 5; done"
    took: list[float] = []
    with on.person.start("exec", ASKING, "--", "bash", "-c", holds) as process:
        ends = _ends(on.init_of(ASKING))
        with Link.to(on.person.home / "run/irons/keeper.sock", WITHIN) as keeper:
            cell, deadline = on.status(ASKING)["id"], time.monotonic() + 10 * WITHIN
            while len(took) < count and time.monotonic() < deadline:
                op, fields = call_of(FindProgram(cell, *ends))
                began = time.monotonic()
                found = keeper.request(op, **fields).body
                if found.get("program") == "sleep 5":
                    took.append((time.monotonic() - began) * 1000)
                else:
                    # The gateway has given the connection up.
                    ends = _ends(on.init_of(ASKING))
        process.kill()
    if len(took) < count:
        raise SystemExit(f"{len(took)} of {count} programs were found")
    spread = Spread.of(took)
    print(
        f"\nprogram behind a question, ms: p50 {spread.median:.1f}, p99 {spread.p99:.1f}, max {spread.most:.1f}"
    )
    return verdict("request to program at p50", spread.median, 20.0, unit=" ms")


def _ends(process: int) -> tuple[str, int, str, int]:
    """The two ends of a connection that a sandbox has to `PORT`."""
    deadline = time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        rows = [line.split() for line in Path(f"/proc/{process}/net/tcp").read_text().splitlines()[1:]]
        found = [[part.split(":") for part in row[1:3]] for row in rows if row[9] != "0"]
        for (own, port), (peer, peer_port) in found:
            if int(peer_port, 16) == PORT:
                return _literal(own), int(port, 16), _literal(peer), PORT
        time.sleep(0.05)
    raise SystemExit("the sandbox has no connection")


def _literal(text: str) -> str:
    """An IPv4 address as /proc has it."""
    return socket.inet_ntoa(int(text, 16).to_bytes(4, sys.byteorder))


def flooded(on: Stage, count: int) -> bool:
    """One sandbox tries ever more hosts, while another one's question is asked and its allowed requests go on."""
    names = [f"f{number}.example.test" for number in range(200)]
    flood = resolved(on, FLOODING, names)
    address, process = resolved(on, ASKING, [ALLOWED])[ALLOWED], on.init_of(ASKING)
    mine = [f"m{number}.example.test" for number in range(10)]
    asked = resolved(on, ASKING, mine)
    alone = rate(process, address)
    words = ["nsenter", "-t", str(on.init_of(FLOODING)), "-n", sys.executable, "-c", FLOOD, str(count)]
    shown = []
    with pane(on) as screen, subprocess.Popen(words, stdin=subprocess.PIPE, text=True) as flooding:
        watched(on, wanted=True)
        assert flooding.stdin is not None
        flooding.stdin.write(" ".join(flood.values()))
        flooding.stdin.close()
        screen.until("> f")
        for name in mine:
            screen.forget()
            attempt = Attempt(process, asked[name], name)
            shown.append((screen.until(f" {name}:") - attempt.began) * 1000)
            with on.api() as api:
                found = api.get("/questions").json()["questions"]
                identity = next(each["id"] for each in found if each["host"] == name)
                api.post(f"/questions/{identity}", json={"answer": "once"}).raise_for_status()
            attempt.answer()
        beside = rate(process, address)
        flooding.kill()
    print(
        f"\n{count:,} connections to ever more places of one sandbox; allowed requests of another, per second: "
        f"{beside:.0f} beside it, {alone:.0f} alone"
    )
    return all(
        (
            verdict("a neighbour's question on the screen, worst of 10", max(shown), 200.0, unit=" ms"),
            verdict("its traffic's share of what it has alone", beside / alone, 0.5, at_most=False),
        )
    )


def rate(process: int, address: str, seconds: float = 3.0) -> float:
    """Allowed requests a second, one after the other."""
    count, until = 0, time.monotonic() + seconds
    while time.monotonic() < until:
        _, answer = Attempt(process, address, ALLOWED).answer()
        if not answer.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"an allowed request failed: {answer!r}")
        count += 1
    return count / seconds


def main() -> int:
    """Measure and print; 1 where a bar is missed."""
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--questions", type=int, default=200, help="questions one by one (default: 200)")
    words.add_argument("--refusals", type=int, default=500, help="refusals of each mode (default: 500)")
    words.add_argument("--programs", type=int, default=200, help="programs looked up (default: 200)")
    words.add_argument("--flood", type=int, default=10_000, help="connections of the flood (default: 10000)")
    given = words.parse_args()
    with stage() as on:
        for name, mode in ((ASKING, "ask"), (DENYING, "deny"), (FLOODING, "ask")):
            on.person.ok("create", name, "--mode", mode, "--allow", ALLOWED, timeout=300)
        met = [
            refusals(on, given.refusals),
            questions(on, given.questions),
            programs(on, given.programs),
            flooded(on, given.flood),
        ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
