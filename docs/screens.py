"""Records the pictures in `docs/`: the real prompt and the real live view on a pseudo-terminal, in front of the tests' API server.

python -m docs.screens
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path
from typing import Any

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.style import Style
from rich.text import Text
from tests.repl.terminal import Terminal

from irons.testing import EXTENSIONS, FakeApi
from irons.text import rfc3339

HERE = Path(__file__).parent
COLUMNS, ROWS = 96, 20
PORT = 8400
"""Where the server listens, so that the picture does not change by itself."""
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', 'Liberation Mono', monospace"
BLOCK = "█"
COLOURS = {"default": None, "brown": "yellow", "brightbrown": "bright_yellow"}


def main() -> int:
    """Record every picture."""
    for name, picture in PICTURES.items():
        with tempfile.TemporaryDirectory() as home, FakeApi(extensions=EXTENSIONS, port=PORT) as api:
            (HERE / f"{name}.svg").write_text(picture(api, _environment(home, api)))
            print(f"docs/{name}.svg")
    return 0


def prompt(api: FakeApi, env: dict[str, str]) -> str:
    """The prompt, with the menu of sandboxes open."""
    for name, status, hours in (
        ("agent-7", "ready", 76),
        ("agent-42", "ready", 3),
        ("ci-runner", "stopped", 52),
        ("staging-agent", "creating", 0),
    ):
        created = datetime.now(UTC) - timedelta(hours=hours, seconds=9)
        api.add(name, status, created_at=rfc3339(created))
    for host in ("pypi.org", "files.pythonhosted.org"):
        api.rules.append({"pattern": host, "list": "allow"})
    api.mode = "deny"
    with Terminal([sys.executable, "-m", "irons"], env, columns=COLUMNS, rows=ROWS) as screen:
        screen.until("0 denied")
        screen.send("list\r")
        screen.until(r"staging-agent.*\nirons>")
        screen.send("use agent-42\r")
        screen.until("agent-42 irons>")
        screen.send("egress check tracker.example\r")
        screen.until(r"\n\[7\] agent-42 irons>")
        for host in ("tracker.example", "telemetry.example"):
            api.record(host, "agent-42", allowed=False, verdict="blocked")
        screen.until("2 denied")
        screen.send("audit ag")
        screen.until(r"agent-7 +ready")
        screen.send("\t\t")
        screen.until(r"irons> audit agent-42")
        settle(screen)
        return svg(screen, "irons")


def watch(api: FakeApi, env: dict[str, str]) -> str:
    """The live view of one sandbox."""
    api.add("agent-42")
    api.mode = "deny"
    tried = (
        ("pypi.org", 41, "allowed", ""),
        ("files.pythonhosted.org", 27, "allowed", ""),
        ("github.com", 12, "allowed", ""),
        ("telemetry.example", 9, "blocked", "no rule allows telemetry.example"),
        ("tracker.example", 4, "blocked", "rule *.example (all sandboxes) denies it"),
        ("git.example", 2, "blocked", "no rule allows git.example:22"),
    )
    order = [each for turn in range(41) for each in tried if turn < each[1]]
    for host, _, verdict, reason in order[12:] + order[:12]:
        port = 22 if host == "git.example" else 443
        api.record(host, "agent-42", allowed=verdict == "allowed", verdict=verdict, reason=reason, port=port)
    with Terminal(
        [sys.executable, "-m", "irons", "watch", "agent-42"], env, columns=COLUMNS, rows=ROWS
    ) as screen:
        screen.until("pypi.org")
        while "▸ ? telemetry.example" not in screen.text:
            screen.send("\x1b[B")
            settle(screen)
        return svg(screen, "irons watch agent-42")


PICTURES: dict[str, Callable[[FakeApi, dict[str, str]], str]] = {
    "prompt": prompt,
    "watch": watch,
}


def settle(screen: Terminal) -> None:
    """Let the program draw what it has begun."""
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        screen.read(0.05)


def svg(terminal: Terminal, title: str) -> str:
    """Return a terminal's screen as an SVG picture that loads nothing from elsewhere."""
    console = Console(
        record=True,
        width=COLUMNS,
        file=StringIO(),
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    for row in range(terminal.screen.lines):
        line = Text(no_wrap=True, end="")
        for column in range(terminal.screen.columns):
            cell = terminal.screen.buffer[row][column]
            # A block is drawn as ground: as letters blocks would show where they meet.
            block = cell.data == BLOCK
            line.append(
                " " if block else cell.data, Style(bgcolor=_colour(cell.fg)) if block else _style(cell)
            )
        console.print(line)
    # A line more than the terminal has: the picture ends where its last line begins to be cut.
    console.print()
    template = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    template = template.replace("Fira Code, monospace", FONTS).replace(
        "font-family: arial", "font-family: sans-serif"
    )
    return console.export_svg(title=title, code_format=template, unique_id=f"irons-{len(title)}")


def _style(cell: Any) -> Style:
    return Style(
        color=_colour(cell.fg),
        bgcolor=_colour(cell.bg),
        bold=cell.bold,
        italic=cell.italics,
        underline=cell.underscore,
        reverse=cell.reverse,
    )


def _colour(name: str) -> str | None:
    if re.fullmatch(r"[0-9a-f]{6}", name):
        return f"#{name}"
    return COLOURS.get(name, name.replace("bright", "bright_") if name.startswith("bright") else name)


def _environment(home: str, api: FakeApi) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": home,
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "IRONS_API_URL": api.url,
        "IRONS_API_KEY": "recorded",
        "IRONS_PLUGINS": "",
    }


if __name__ == "__main__":
    sys.exit(main())
