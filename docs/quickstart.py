"""The whole of irons in a minute, for real: what `make quickstart` runs once everything is set up.

It keeps to itself: a configuration and a backend of its own below `~/.cache/irons-quickstart`, and two stand-in web servers on this
machine's loopback address, which it opens to its sandbox by `[local.hosts]` and `--private`. It needs no account, no key, no URL and,
with `IMAGE=file.tar`, no network. It begins with doctor's checks, and ends there where this machine cannot run sandboxes. Each command
is printed before its output; the output is the same each time but for times.
With `--remove` it only takes away what it keeps for the next time (`make clean`). With `--tour` it prepares the same way, and then follows
one connection through the code (`make tour`; `tools/tour`).
"""

from __future__ import annotations

import http.server
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

DOCS, TRACKER, PORT = "docs.example.test", "tracker.example.test", 8765
HOME = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "irons-quickstart"
COLOUR = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
BOLD, DIM, PLAIN = ("\x1b[1m", "\x1b[2m", "\x1b[0m") if COLOUR else ("", "", "")
BIN = Path(sys.executable).parent
FOUND = (
    ""
    if shutil.which("irons")
    else f"  source {os.path.relpath(BIN / 'activate')}        so that your shell finds irons\n"
)

NEXT = f"""
{BOLD}That was it. Next, for yourself:{PLAIN}

{FOUND}  irons create my-sandbox          a machine of your own (mode warn: watch first)
  irons ssh my-sandbox             enter it
  irons                            the irons> prompt, with completion
  irons help egress                what a rule covers

{BOLD}A coding agent in a sandbox:{PLAIN}

  irons create agent --mode deny --allow api.anthropic.com --allow registry.npmjs.org --allow deb.debian.org
  irons exec agent -- sudo sh -c 'apt-get update && apt-get install -y npm git'
  irons exec agent -- sudo npm install -g node@22 @anthropic-ai/claude-code
  irons exec agent --env ANTHROPIC_API_KEY -- claude -p 'write a haiku about firewalls'
  irons audit egress agent         what it reached, and what it was refused
  irons egress suggest agent       what it would still need

{BOLD}To be rid of it:{PLAIN}

  irons local uninstall --purge    sandboxes, images, rules and the audit log, and the processes
  make clean                       what make made here, and what this quickstart keeps
"""


class Quickstart:
    """The steps, with settings and state of their own."""

    def __init__(self) -> None:
        """Turn to the quickstart's own directories."""
        self.env = {
            **{key: value for key, value in os.environ.items() if not key.startswith(("IRONS_", "XDG_"))},
            "XDG_STATE_HOME": str(HOME / "state"),
            "XDG_CACHE_HOME": str(HOME / "cache"),
            "XDG_RUNTIME_DIR": str(HOME / "run"),
            "IRONS_CONFIG": str(HOME / "config.toml"),
            "IRONS_API_URL": "local",
            "IRONS_NO_INPUT": "1",
        }
        self.program = [sys.executable, "-m", "irons"]

    def check(self) -> None:
        """Run doctor's checks; where this machine cannot run sandboxes, print its words and its fixes and end.

        A machine that works sees nothing of it.
        """
        try:
            for directory in (HOME, HOME / "run"):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            sys.exit(f"{HOME} can't be made: {error.strerror}; set XDG_CACHE_HOME to a directory of your own")
        # The servers stand on this machine, and the image may come as a file.
        needless = {"names", "internet", *(["mmdebstrap"] if os.environ.get("IMAGE") else [])}
        said = self.quietly("doctor", "-o", "json")
        try:
            failed = [row for row in json.loads(said.stdout) if not row["ok"] and row["name"] not in needless]
        except (ValueError, KeyError, TypeError):
            sys.exit(f"irons doctor failed:\n{said.stderr}")
        if failed:
            print("This machine cannot run sandboxes yet; irons doctor says why, and the line that fixes it:")
            sys.exit("\n".join(f"\n  {row['name']}: {row['what']}\n    {row['fix']}" for row in failed))

    def prepare(self) -> None:
        """Make the directories, a key, the configuration and the image."""
        key = HOME / "id_ed25519"
        if not key.exists():
            keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "irons-quickstart", "-f", str(key)]
            subprocess.run(keygen, check=True)
        (HOME / "config.toml").write_text(
            f'[local.hosts]\n"{DOCS}" = "127.0.0.1"\n"{TRACKER}" = "127.0.0.1"\n'
        )
        self.quietly("destroy", "quickstart", "--force")
        for pattern in self.quietly("egress", "list").stdout.split():
            if "example.test" in pattern:
                self.quietly("egress", "remove", pattern)
        if "debian" in self.quietly("local", "image", "list").stdout:
            return
        given = os.environ.get("IMAGE")
        if given:
            self.show("local", "image", "import", str(Path(given).resolve()), "--as", "debian")
            return
        own = dict(os.environ)
        if "debian" not in self.quietly("local", "image", "list", env=own).stdout:
            self.show("local", "image", "build", env=own)
        tar = HOME / "debian.tar"
        self.quietly("local", "image", "export", str(tar), env=own, check=True)
        self.quietly("local", "image", "import", str(tar), "--as", "debian", check=True)
        tar.unlink()

    def run(self) -> None:
        """Walk the whole path."""
        say(f"Two stand-in web servers run on this machine: {DOCS} and {TRACKER}, port {PORT}.")
        self.show("create", "quickstart", "--key", str(HOME / "id_ed25519.pub"), shown="create quickstart")
        self.show("ssh", "quickstart", "--", "echo hello from $(hostname), as $(id -un)")

        say("Servers on this machine are out of reach unless one is opened, by name and exact address:")
        self.show("egress", "allow", f"*.example.test:{PORT}", "--private", "127.0.0.1")
        self.show("egress", "deny", f"{TRACKER}:{PORT}")

        say("Watch first: mode warn lets pass what the rules would refuse, and logs it.")
        self.show("egress", "mode", "warn")
        self.fetch(DOCS)
        self.fetch(TRACKER)
        self.show("audit", "egress", "quickstart")

        say("Then allow what is needed by its name, and lock.")
        self.show("egress", "allow", f"{DOCS}:{PORT}", "--private", "127.0.0.1")
        self.show("egress", "mode", "deny")
        self.fetch(DOCS)
        self.fetch(TRACKER)
        self.fetch("pastebin.example.com")
        self.show("audit", "egress", "quickstart")
        self.show("destroy", "quickstart", "--force")

    def fetch(self, host: str) -> None:
        """Fetch a page from inside."""
        self.show("exec", "quickstart", "--", "curl", "-s", f"http://{host}:{PORT}/")

    def tour(self) -> int:
        """Follow one connection through the code, with the image that is here; returns the exit code."""
        self.quietly("local", "down", check=True)
        words = [sys.executable, "-m", "tools.tour", "--key", str(HOME / "id_ed25519.pub")]
        return subprocess.run(words, env=self.env, cwd=Path(__file__).parents[1], check=False).returncode

    def remove(self) -> None:
        """Take away what is kept below `HOME`, the image's files, which are not this user's own, included."""
        if HOME.exists():
            self.quietly("local", "uninstall", "--purge", "--yes", check=True)
            shutil.rmtree(HOME)

    def show(self, *words: str, shown: str = "", env: dict[str, str] | None = None) -> None:
        """Print a command, run it with its output on this terminal, and end all where it fails."""
        print(f"\n{BOLD}$ irons {shown or shlex.join(words)}{PLAIN}", flush=True)
        code = subprocess.run([*self.program, *words], env=env or self.env, check=False).returncode
        if code:
            sys.exit(
                f"that ended with {code}, which it should not; irons doctor says what this machine lacks"
            )

    def quietly(
        self, *words: str, env: dict[str, str] | None = None, check: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a command without showing it; with `check` its failure ends all."""
        done = subprocess.run(
            [*self.program, *words], env=env or self.env, capture_output=True, text=True, check=False
        )
        if check and done.returncode:
            sys.exit(f"irons {shlex.join(words)} failed:\n{done.stderr}")
        return done


def say(text: str) -> None:
    """Print a line of the story."""
    print(f"\n{DIM}# {text}{PLAIN}", flush=True)


class Page(http.server.BaseHTTPRequestHandler):
    """Answers with the host that was asked for."""

    def do_GET(self) -> None:
        """Answer any path."""
        text = f"Hello, this is {self.headers.get('Host', '').partition(':')[0]}.\n".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server's name
        """Keep silent."""


def main() -> None:
    """Serve the stand-ins and walk the path, or remove what earlier walks left."""
    if sys.argv[1:] == ["--remove"]:
        Quickstart().remove()
        return
    # A background job of a shell ignores it otherwise.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    began = time.monotonic()
    quickstart = Quickstart()
    quickstart.check()
    if sys.argv[1:] == ["--tour"]:
        quickstart.prepare()
        sys.exit(quickstart.tour())
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Page)
    except OSError as error:
        sys.exit(f"port {PORT} of 127.0.0.1 can't be had: {error.strerror}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        quickstart.prepare()
        quickstart.run()
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        quickstart.quietly("destroy", "quickstart", "--force")
        quickstart.quietly("local", "down")
        server.shutdown()
    print(NEXT)
    print(f"{DIM}({time.monotonic() - began:.0f} s){PLAIN}")


if __name__ == "__main__":
    main()
