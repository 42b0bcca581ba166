"""An interactive agent, started as the README shows it."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

from tests.background import interruptible
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
    found = re.search(
        r"^An agent at work.*?```console\n(.*?)```", README.read_text(), re.DOTALL | re.MULTILINE
    )
    assert found is not None
    return [line.removeprefix("$ ") for line in found[1].splitlines()]


def test_the_agent_recipe_of_the_readme_runs_as_printed(person: Person) -> None:
    """After the session of the README, too, an agent has a way out, a terminal, its key and its directory; its exit code is the line's."""
    shim = person.home / "bin"
    shim.mkdir(exist_ok=True)
    (shim / "irons").write_text(f'#!/bin/sh\nexec {shlex.join(person.program)} "$@"\n')
    (shim / "irons").chmod(0o755)
    env = {**person.env, "PATH": f"{shim}:{person.env['PATH']}", "ANTHROPIC_API_KEY": KEY, "TERM": "xterm"}
    create, install, start = recipe()
    # The session in the README ends like this.
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
        person.run("destroy", "box", "--force", timeout=180)
        person.run("egress", "mode", "warn")
    lines = shown.split("\r\n")
    assert lines[0].startswith("/dev/pts/"), shown
    assert lines[1:4] == ["/home/irons/work", f"the key has {len(KEY)} characters", "xterm"]
    assert "0" in lines[4:6]
    assert code == 5


def _sh(person: Person, line: str, env: dict[str, str]) -> None:
    words = [*person.lab.enter(user=person.user), "sh", "-c", line]
    done = subprocess.run(
        words, env=env, cwd=person.home, capture_output=True, text=True, check=False, timeout=180
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
        return process.wait(180), shown.decode(errors="replace")
    finally:
        os.close(ours)


def _interrupted(person: Person, words: list[str], env: dict[str, str]) -> int:
    """Run a command that follows the log, interrupt it once it has printed something, and return its exit code."""
    assert person.inside("my-sandbox", "curl -s -m 60 http://web.example.test/").returncode == 0
    with interruptible():
        following = subprocess.Popen(
            words, env=env, cwd=person.home, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
    try:
        assert following.stdout is not None
        assert "web.example.test" in following.stdout.readline()
        following.send_signal(signal.SIGINT)
        following.communicate(timeout=180)
        return following.returncode
    finally:
        following.kill()
        following.communicate()


def test_the_session_of_the_readme_runs_as_printed(person: Person) -> None:
    """Each line does what it says, the shell and the log that is followed until they are left; only the check is refused."""
    found = re.search(r"^## A session\n\n```console\n(.*?)```", README.read_text(), re.DOTALL | re.MULTILINE)
    assert found is not None
    shim = person.home / "bin"
    shim.mkdir(exist_ok=True)
    (shim / "irons").write_text(f'#!/bin/sh\nexec {shlex.join(person.program)} "$@"\n')
    (shim / "irons").chmod(0o755)
    env = {**person.env, "PATH": f"{shim}:{person.env['PATH']}"}
    codes: dict[str, int] = {}
    try:
        for line in found[1].splitlines():
            command = line.removeprefix("$ ")
            words = [*person.lab.enter(user=person.user), "sh", "-c", f"exec {command}"]
            name = command.partition(" #")[0].strip()
            if "--follow" in command:
                codes[name] = _interrupted(person, words, env)
                continue
            done = subprocess.run(
                words,
                env=env,
                cwd=person.home,
                input="exit 0\n",
                capture_output=True,
                text=True,
                timeout=180,
                check=False,
            )
            codes[name] = done.returncode
    finally:
        person.run("destroy", "my-sandbox", "--force", timeout=180)
    assert {command: code for command, code in codes.items() if code} == {
        "irons audit my-sandbox --follow": 130,
        "irons egress check example.com --sandbox my-sandbox": 7,
    }
