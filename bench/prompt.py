"""How quick the prompt is: to its first line, per key next to ten thousand sandboxes, and per command on an open connection.

The first prompt is measured next to the bare interpreter (`python -I -S -c pass`), a key next to a prompt of prompt_toolkit alone with the
same menus, a command next to the same request by the standard library's HTTP client on a connection kept alive. Ends with 1 where a bar is missed.

    python -m bench.prompt [--runs N]
"""

from __future__ import annotations

import argparse
import http.client
import io
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document
from tests.repl.terminal import Terminal

from irons.client.names import NameCache
from irons.host import PluginHost
from irons.settings.settings import load
from irons.terminal.streams import Streams
from irons_repl.forecast.effects import effects
from irons_repl.forecast.forecast_line import forecast_line
from irons_repl.forecast.ground import Ground, RuleKey, TriedPlace
from irons_repl.forecast.typed_change import typed_change
from irons_repl.line.completer import PromptCompleter
from irons_repl.run.running import LineRunner
from irons_repl.run.session import ShellSession
from irons_repl.status.sources import sources

SANDBOXES = 10_000
ROUNDS = 3
"""Rounds of which the quietest counts: what else the machine does is not the prompt's."""

LINES = (
    "status agent-0042",
    "ssh a9",
    "use 77-x",
    "audit egress team-7-agent-99",
    "status zzzz",
    "egress allow files.pythonhosted.org",
    "destroy gnt12 tm3ag9 --force",
)
"""What is typed, key by key: beginnings, parts, letters in order, and what fits nothing."""

HOSTS = 10_000
CHANGES = (
    "egress allow '*.site-7.example'",
    "egress deny *",
    "egress allow host-1234.site-34.example:443 --note x",
    "egress mode deny",
    "egress remove '*.site-1.example'",
)
"""Changes of rules that are typed, and the hosts that they are judged on."""

SERVER = """
import sys, threading
from irons.testing import EXTENSIONS, FakeApi
with FakeApi(extensions=EXTENSIONS) as api:
    api.add("box")
    for n in range(int(sys.argv[1])):
        api.add(f"team-{n % 40}-agent-{n:05}", ("ready", "stopped", "error")[n % 3])
    print(api.url, flush=True)
    sys.stdin.read()
"""


class Figure(NamedTuple):
    """One figure, what it stands next to, and the most it may be (0: shown alone)."""

    name: str
    value: str
    beside: str
    held: bool


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure everything and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=15, help="how often each start is measured")
    runs = parser.parse_args(arguments).runs
    with tempfile.TemporaryDirectory() as home, server(SANDBOXES) as url, server(0) as small:
        env = environment(Path(home), url)
        few = {**env, "IRONS_API_URL": small}
        figures = [
            *starts(env, runs),
            *completion(env),
            *forecasts(env),
            *keys(env, few),
            *commands(env, url),
        ]
    for figure in figures:
        print(f"{figure.name:<52}{figure.value:>12}   {figure.beside}{'' if figure.held else '  MISSED'}")
    return 0 if all(figure.held for figure in figures) else 1


def environment(home: Path, url: str) -> dict[str, str]:
    """Return the environment of a person whose cache knows ten thousand sandboxes."""
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "IRONS_API_URL": url,
        "IRONS_PLUGINS": "",
    }
    settings = load({}, env)
    states = ("ready", "stopped", "error")
    NameCache.of(settings).replace({f"team-{n % 40}-agent-{n:05}": states[n % 3] for n in range(SANDBOXES)})
    NameCache.of(settings, what="domains").replace({f"host-{n}.example.com": "allowed" for n in range(2000)})
    return env


@contextmanager
def server(sandboxes: int) -> Iterator[str]:
    """Serve the v0 API with so many sandboxes from another process, so that neither waits for the other's interpreter."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(sandboxes)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        yield process.stdout.readline().strip()
        process.stdin.close()


def starts(env: dict[str, str], runs: int) -> Iterable[Figure]:
    """From the command to the first prompt on the screen: of irons, and of prompt_toolkit alone."""
    bare: list[float] = []
    first: list[float] = []
    least: list[float] = []
    alone = "from prompt_toolkit import PromptSession; PromptSession().prompt('irons> ')"
    for _ in range(runs):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-I", "-S", "-c", "pass"], check=True)
        bare.append(time.perf_counter() - began)
        first.append(_start((sys.executable, "-m", "irons"), env))
        least.append(_start((sys.executable, "-c", alone), env))
    interpreter = statistics.median(bare)
    ratio = statistics.median(first) / interpreter
    yield Figure(
        "first prompt",
        f"{statistics.median(first) * 1000:.0f} ms",
        f"{ratio:.1f} times the bare interpreter's {interpreter * 1000:.1f} ms (bar 12 times); prompt_toolkit alone takes "
        f"{statistics.median(least) / interpreter:.1f} times as long",
        ratio <= 12,
    )


def _start(argv: Sequence[str], env: dict[str, str]) -> float:
    """Return the seconds until a program has drawn its prompt."""
    began = time.perf_counter()
    with Terminal(argv, env) as screen:
        while b"irons>" not in screen.raw:
            screen.read(1)
        taken = time.perf_counter() - began
        screen.send("\x04")
        screen.ended()
    return taken


def completion(env: dict[str, str]) -> Iterable[Figure]:
    """What the menu costs at each key, ten thousand sandboxes on hand."""
    session = ShellSession(PluginHost(env=env), Streams(io.StringIO(), io.StringIO(), io.StringIO(), env))
    completer = PromptCompleter(session.host.tree, sources(session), {})
    taken: list[float] = []
    for _ in range(20):
        for line in LINES:
            for end in range(1, len(line) + 1):
                document = Document(line[:end], end)
                began = time.perf_counter()
                for _completion in completer.get_completions(document, CompleteEvent(text_inserted=True)):
                    pass
                taken.append(time.perf_counter() - began)
    session.close()
    last = percentile(taken, 99)
    yield Figure(
        f"completion per key, {SANDBOXES:,} sandboxes, p99",
        f"{last * 1000:.1f} ms",
        f"median {statistics.median(taken) * 1000:.1f} ms, {len(taken)} keys (bar 16 ms)",
        last <= 0.016,
    )


def forecasts(env: dict[str, str]) -> Iterable[Figure]:
    """What the forecast costs at each key of a change of rules, ten thousand hosts in the log."""
    tree = PluginHost(env=env).tree
    allowed = frozenset({RuleKey("account", "*.site-1.example")})
    places = [
        TriedPlace(
            "box",
            f"host-{n}.site-{n % 40}.example",
            443,
            n % 9,
            allows=allowed if n % 40 == 1 else frozenset(),
        )
        for n in range(HOSTS)
    ]
    ground = Ground("box", places, "7 days", "warn", "warn")
    rounds: list[list[float]] = []
    for _ in range(ROUNDS * 3):
        taken: list[float] = []
        for line in CHANGES:
            for end in range(len("egress "), len(line) + 1):
                began = time.perf_counter()
                change = typed_change(line[:end], tree, "box")
                if change is not None:
                    forecast_line(effects(change, ground), 100)
                taken.append(time.perf_counter() - began)
        rounds.append(taken)
    quietest = min(rounds, key=max)
    yield Figure(
        f"forecast per key, {HOSTS:,} hosts, the slowest",
        f"{max(quietest) * 1000:.1f} ms",
        f"median {statistics.median(quietest) * 1000:.2f} ms, {len(quietest)} keys (bar 5 ms)",
        max(quietest) <= 0.005,
    )


def keys(env: dict[str, str], few: dict[str, str]) -> Iterable[Figure]:
    """From a key to what it changes on the terminal: in irons, and in a bare prompt with the same menus in the same run."""
    bare = (sys.executable, "-m", "bench.bare_prompt", *LINES)
    irons = (sys.executable, "-m", "irons")
    with Terminal(["cat"], env) as screen:
        echo = list(typed(screen))
    rounds: dict[str, list[list[float]]] = {}
    for _ in range(ROUNDS):
        for name, argv, of in (
            ("bare", bare, env),
            ("many", irons, env),
            ("bare, one", bare, few),
            ("one", irons, few),
        ):
            rounds.setdefault(name, []).append(list(_in_prompt(argv, of)))
    quietest = {name: min(taken, key=lambda one: percentile(one, 99)) for name, taken in rounds.items()}
    for what, name, beside in (
        (f"key to screen, {SANDBOXES:,} sandboxes, p99", "many", "bare"),
        ("key to screen, one sandbox, p99", "one", "bare, one"),
    ):
        taken, floor = quietest[name], quietest[beside]
        last, least = percentile(taken, 99), percentile(floor, 99)
        middle, low = statistics.median(taken), statistics.median(floor)
        yield Figure(
            what,
            f"{last * 1000:.1f} ms",
            f"{last / least:.2f} times a bare prompt's {least * 1000:.1f} ms (bars 1.3 times, 16 ms); medians {middle * 1000:.1f} "
            f"and {low * 1000:.1f} ms, {middle / low:.2f} times; the terminal's own echo, p99 {percentile(echo, 99) * 1000:.1f} ms",
            last / least <= 1.3 and last <= 0.016,
        )


def _in_prompt(argv: Sequence[str], env: dict[str, str]) -> Iterator[float]:
    with Terminal(argv, {**env, "PYTHONPATH": str(Path(__file__).parent.parent)}) as screen:
        screen.until("irons>")
        settled = time.monotonic() + 2
        while time.monotonic() < settled:
            screen.read(0.1)
        yield from typed(screen)
        screen.send("\x04")


def typed(screen: Terminal) -> Iterator[float]:
    """Type the lines, and yield the seconds until each key changes the screen."""
    for line in LINES:
        for key in line:
            before = len(screen.raw)
            began = time.perf_counter()
            screen.send(key)
            # A blank is not drawn over a blank: what tells is that something is drawn at all.
            while len(screen.raw) == before and time.perf_counter() - began < 2:
                screen.read(0.05)
            yield time.perf_counter() - began
            settle = time.perf_counter() + 0.06
            while time.perf_counter() < settle:
                screen.read(0.01)
        screen.send("\x15")
        screen.read(0.2)


def commands(env: dict[str, str], url: str) -> Iterable[Figure]:
    """A command on a warm prompt, next to the bare request."""
    host, port = url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port))
    bare: list[float] = []
    warm: list[float] = []
    out = io.StringIO()
    session = ShellSession(PluginHost(env=env), Streams(io.StringIO(), out, io.StringIO(), env))
    runner = LineRunner(session)
    assert runner.run("status box") == 0
    rounds: list[tuple[float, float]] = []
    for _ in range(ROUNDS * 5):
        bare.clear()
        warm.clear()
        for _ in range(40):
            began = time.perf_counter()
            connection.request("GET", "/sandboxes/box")
            connection.getresponse().read()
            bare.append(time.perf_counter() - began)
            began = time.perf_counter()
            assert runner.run("status box") == 0
            warm.append(time.perf_counter() - began)
        rounds.append((statistics.median(warm), statistics.median(bare)))
    session.close()
    connection.close()
    whole, asked = min(rounds, key=lambda each: each[0] - each[1])
    beyond = whole - asked
    yield Figure(
        "`status box` on a warm prompt, beyond the server",
        f"{beyond * 1000:.1f} ms",
        f"{whole * 1000:.1f} ms with, the bare request {asked * 1000:.1f} ms (bar 10 ms)",
        beyond <= 0.010,
    )


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the value that so many percent do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, len(ordered) * percent // 100)]


if __name__ == "__main__":
    sys.exit(main())
