"""Walk one connection: `python -m tools.tour [OPTION…]`, with the options of `irons create`.

A sandbox is made, a program in it fetches a page from a server on this machine's loopback address, and each function
on the way is printed by file and line. It needs an image, and no daemon that runs; `make tour` sees to both. The
sandbox, the daemon and the server end with it.
"""

from __future__ import annotations

import http.server
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tools.tour import tracing
from tools.tour.stops import RECORDED, ROOT, STOPS, Call, LostError, path, retraced

from irons_local.paths import Paths

HOST = "tour.example.test"
NAME = "tour"
_PATIENCE = 20.0
"""Seconds that the last of the calls may take after the last command, and that the daemon may take to end."""
_TRIES = 5
"""Connections that are made at most until one has gone the whole way in order."""
_COLOUR = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
_BOLD, _DIM, _PLAIN = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if _COLOUR else ("", "", "")


class Tour:
    """One walk.

    Args:
        room: a directory for the settings of this walk.
        options: of `irons create`.
    """

    def __init__(self, room: Path, options: Sequence[str]) -> None:
        config = room / "config.toml"
        config.write_text(f'[local.hosts]\n"{HOST}" = "127.0.0.1"\n')
        self._options = options
        self._env = {
            **{key: value for key, value in os.environ.items() if not key.startswith("IRONS_")},
            "IRONS_CONFIG": str(config),
            "IRONS_API_URL": "local",
            "IRONS_NO_INPUT": "1",
            "PYTHONPATH": str(ROOT),
        }
        paths = Paths.of(os.environ)
        self._files = (paths.gateway / tracing.FILE, paths.local / tracing.FILE)

    @contextmanager
    def daemon(self) -> Iterator[None]:
        """Have a keeper whose processes record their calls."""
        self._forget()
        words = [sys.executable, "-P", "-m", "tools.tour.keeper"]
        # A Ctrl-C is for this program: the daemon is still needed to destroy the sandbox.
        with subprocess.Popen(
            words, env=self._env, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as keeper:
            assert keeper.stdout is not None  # noqa: S101 (for the type checker)
            if not keeper.stdout.readline():
                sys.exit("the tour needs a daemon of its own; `irons local down` ends the one that runs")
            try:
                yield
            finally:
                self._irons("local", "down")
                try:
                    keeper.wait(_PATIENCE)
                except subprocess.TimeoutExpired:
                    keeper.terminate()
                self._forget()

    def walk(self, port: int) -> None:
        """Make a sandbox, fetch a page in it, and print the way."""
        self._show("create", NAME, "--mode", "deny", *self._options, shown=f"create {NAME} --mode deny")
        try:
            self._show("egress", "allow", f"{HOST}:{port}", "--private", "127.0.0.1", "--sandbox", NAME)
            began = 0

            def fetch() -> None:
                nonlocal began
                began = time.monotonic_ns()
                self._show("exec", NAME, "--", "curl", "-sS", f"http://{HOST}:{port}/")

            retraced(fetch, lambda: self._calls(began, RECORDED), _TRIES)
            self._show("audit", "egress", NAME)
            print(
                f"\n{_BOLD}The way of that connection{_PLAIN}, with milliseconds from the first question:\n"
            )
            for line in lines(self._calls(began)):
                print(line)
        except LostError as error:
            sys.exit(f"the tour lost its way: {error}")
        finally:
            self._irons("destroy", NAME, "--force")

    def _calls(self, began: int, count: int = len(STOPS)) -> list[Call]:
        """Return a call of each of the first stops since then; the last ones may still be on their way.

        Raises:
            LostError: one of them was not called in time.
        """
        until = time.monotonic() + _PATIENCE
        while True:
            found = [call for file in self._files for call in tracing.read(file) if call.at >= began]
            try:
                return path(found, STOPS[:count])
            except LostError:
                if time.monotonic() > until:
                    raise
            threading.Event().wait(0.1)

    def _forget(self) -> None:
        for file in self._files:
            with suppress(FileNotFoundError):
                file.unlink()

    def _show(self, *words: str, shown: str = "") -> None:
        """Print a command, run it on this terminal, and end all where it fails."""
        print(f"{_BOLD}$ irons {shown or shlex.join(words)}{_PLAIN}", flush=True)
        if code := self._irons(*words, quiet=False):
            sys.exit(f"the command ended with {code}; `irons doctor` says what this machine lacks")

    def _irons(self, *words: str, quiet: bool = True) -> int:
        stream = subprocess.DEVNULL if quiet else None
        argv = [sys.executable, "-m", "irons", *words]
        return subprocess.run(argv, env=self._env, stdout=stream, stderr=stream, check=False).returncode


def lines(calls: Sequence[Call]) -> Iterator[str]:
    """Render the calls: number, time, place and function, and what happens there."""
    for number, (call, stop) in enumerate(zip(calls, STOPS, strict=True), 1):
        after = (call.at - calls[0].at) / 1e6
        yield f"{number:3} {after:8.2f}  {stop.place()}  {_BOLD}{stop.name}{_PLAIN}"
        yield f"              {_DIM}{stop.says}{_PLAIN}"


class _Page(http.server.BaseHTTPRequestHandler):
    """Answers any request with a line of text."""

    def do_GET(self) -> None:
        """Answer."""
        text = b"Hello from outside.\n"
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (http.server's name)
        """Log nothing."""


@contextmanager
def _serving() -> Iterator[int]:
    """Serve that page on a free port of the loopback address."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Page) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def main(options: Sequence[str]) -> None:
    """Walk, and leave nothing."""
    with tempfile.TemporaryDirectory(prefix="irons-tour-") as room:
        tour = Tour(Path(room), options)
        with _serving() as port, tour.daemon():
            tour.walk(port)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        sys.exit(130)
