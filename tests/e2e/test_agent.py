"""An interactive agent, started as the README shows it."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from pathlib import Path

from tests.e2e.lab import Person

README = Path(__file__).parents[2] / "README.md"
CLAUDE = """#!/bin/sh
tty && pwd && echo "the key has ${#ANTHROPIC_API_KEY} characters" && echo "$TERM" && locale charmap 2>/dev/null
env | grep -c LC_IRONS
exit 5
"""
KEY = "marker-0c2e71"


def recipe() -> list[str]:
    """Return the lines of the README's agent recipe."""
    found = re.search(r"^A coding agent.*?```console\n(.*?)```", README.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    return [line.removeprefix("$ ") for line in found[1].splitlines()]


def test_the_agent_recipe_of_the_readme_runs_as_printed(person: Person) -> None:
    """After the session above it, too, an agent has a way out, a terminal, its key and its directory; its exit code is the line's."""
    shim = person.home / "bin"
    shim.mkdir(exist_ok=True)
    (shim / "irons").write_text(f'#!/bin/sh\nexec {shlex.join(person.program)} "$@"\n')
    (shim / "irons").chmod(0o755)
    env = {**person.env, "PATH": f"{shim}:{person.env['PATH']}", "ANTHROPIC_API_KEY": KEY, "TERM": "xterm"}
    create, install, start = recipe()
    # The session above the recipe ends like this.
    assert "\n$ irons egress mode deny " in README.read_text()
    _sh(person, "irons egress mode deny", env)
    try:
        _sh(person, create, env)
        assert person.run("egress", "mode", "--sandbox", "box").stdout.split()[0] == "warn"
        # The lab has no npm registry: the directory is made as printed, the agent is a stand-in.
        assert install.startswith("irons ssh box -- 'mkdir -p ~/work && ")
        _sh(person, install.partition(" && ")[0] + "'", env)
        put = (
            "sh",
            "-c",
            "sudo tee /usr/local/bin/claude >/dev/null && sudo chmod 755 /usr/local/bin/claude",
        )
        assert person.run("exec", "box", "--", *put, text=CLAUDE).returncode == 0
        code, shown = _on_terminal(person, start, env)
    finally:
        person.run("destroy", "box", "--force", timeout=120)
        person.run("egress", "mode", "warn")
    lines = shown.split("\r\n")
    assert lines[0].startswith("/dev/pts/"), shown
    assert lines[1:4] == ["/home/irons/work", f"the key has {len(KEY)} characters", "xterm"]
    assert "0" in lines[4:6]
    assert code == 5


def _sh(person: Person, line: str, env: dict[str, str]) -> None:
    words = [*person.lab.enter(user=person.user), "sh", "-c", line]
    done = subprocess.run(
        words, env=env, cwd=person.home, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def _on_terminal(person: Person, line: str, env: dict[str, str]) -> tuple[int, str]:
    """Run a line on a terminal of its own; return its exit code and all that was shown."""
    words = [*person.lab.enter(user=person.user), "sh", "-c", line]
    ours, theirs = os.openpty()
    try:
        process = subprocess.Popen(
            words, env=env, cwd=person.home, stdin=theirs, stdout=theirs, stderr=theirs
        )
        os.close(theirs)
        shown = b""
        while True:
            try:
                part = os.read(ours, 4096)
            except OSError:
                break
            if not part:
                break
            shown += part
        return process.wait(60), shown.decode(errors="replace")
    finally:
        os.close(ours)
