"""The completion scripts, in the shells themselves."""

from __future__ import annotations

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.machine import Machine

from irons.cli.shell_completion import SCRIPTS
from irons.client.names import NameCache
from irons.settings.settings import load
from irons.testing import Runner

pytestmark = pytest.mark.process

BIN = Path(sys.executable).parent


@pytest.fixture
def home(irons_env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """An environment with the real `irons` on its path, names in the cache, and some files around."""
    env = {
        **irons_env,
        "PATH": f"{BIN}:{irons_env['PATH']}",
        "TERM": "xterm",
        "IRONS_API_URL": "http://127.0.0.1:1",
    }
    names = NameCache.of(load({}, env))
    names.replace({"agent-42": "ready", "agent-7": "stopped", "build": "ready"})
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "my key.pub").write_text("")
    return env


def work(env: dict[str, str]) -> str:
    """The directory that shells are started in."""
    return str(Path(env["HOME"]).parent / "work")


class Typed:
    """A shell on a terminal, and what its screen showed."""

    def __init__(self, argv: list[str], env: dict[str, str]) -> None:
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            try:
                os.chdir(work(env))
                os.execvpe(argv[0], argv, env)
            finally:
                os._exit(127)
        self.said = ""

    def type(self, keys: str) -> None:
        """Press keys."""
        os.write(self._fd, keys.encode())

    def until(self, pattern: str, seconds: float = 200.0) -> str:
        """Wait until what came since the last call matches, and return it."""
        deadline = time.monotonic() + seconds
        while not re.search(pattern, self.said):
            left = deadline - time.monotonic()
            assert left > 0, f"no {pattern!r} in {self.said!r}"
            if select.select([self._fd], [], [], min(left, 0.5))[0]:
                try:
                    self.said += os.read(self._fd, 65536).decode(errors="replace").replace("\a", "")
                except OSError:
                    pytest.fail(f"the shell ended: {self.said!r}")
        found, self.said = self.said, ""
        return found

    def close(self) -> None:
        """End the shell."""
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self._fd)


@pytest.fixture
def bash(home: dict[str, str]) -> Iterator[Typed]:
    """An interactive bash with the script loaded."""
    shell = Typed(["bash", "--norc", "--noprofile", "-i"], {**home, "PS1": "% "})
    shell.until(r"% ")
    shell.type('bind "set enable-bracketed-paste off"; eval "$(irons completion bash)" && echo loa""ded\n')
    shell.until(r"loaded\r\n% ")
    yield shell
    shell.close()


@pytest.mark.needs("bash")
@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("irons stat\t", "irons status "),
        ("irons status agent-4\t", "irons status agent-42 "),
        ("irons egress al\t", "irons egress allow "),
        ("irons -o js\t", "irons -o json"),
        ("irons list --output=pl\t", "irons list --output=plain "),
        ("irons create x --key my\t", r"irons create x --key my\ key.pub"),
        ("irons create x --key=my\t", r"irons create x --key=my\ key.pub"),
        ("irons status zzz\t", "irons status zzz"),
    ],
)
def test_bash(bash: Typed, typed: str, shown: str) -> None:
    """Tab in bash completes commands, names from the cache, choices after an equals sign, and files where files go."""
    bash.type(f"{typed}#")
    assert shown in bash.until(re.escape(shown.rstrip()) + r"\S* ?#")


@pytest.mark.needs("bash")
def test_bash_lists_what_there_is(bash: Typed) -> None:
    """Two tabs list the names."""
    bash.type("irons status agent-\t\t")
    listed = bash.until(r"agent-42\s+agent-7")
    assert "build" not in listed


@pytest.mark.needs("zsh")
@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("irons stat\t", "status"),
        ("irons status agent-4\t", "agent-42"),
        ("irons egress al\t", "allow"),
        ("irons create x --key my\t", r"my\ key.pub"),
    ],
)
def test_zsh(home: dict[str, str], typed: str, shown: str) -> None:
    """Tab in zsh completes the same."""
    shell = Typed(["zsh", "-f", "-i"], {**home, "PS1": "%% ", "ZDOTDIR": home["HOME"]})
    try:
        shell.until("% ")
        shell.type(
            'unsetopt zle_bracketed_paste; autoload -U compinit; compinit -u -D; eval "$(irons completion zsh)"; echo loa""ded\n'
        )
        shell.until(r"loaded\r\n")
        shell.type(typed)
        shell.until(re.escape(shown))
        shell.type("\x15print -r -- '<'$(irons __complete status agent-4)'>'\n")
        assert "agent-42" in shell.until("agent-42.*>")
    finally:
        shell.close()


@pytest.mark.needs("fish")
@pytest.mark.parametrize(
    ("typed", "shown"),
    [
        ("irons stat", "status\tShow the state of sandboxes and what is known of them."),
        ("irons status agent-4", "agent-42\tready"),
        ("irons egress al", "allow\tAllow domains."),
        ("irons create x --key my", "my key.pub"),
    ],
)
def test_fish(home: dict[str, str], typed: str, shown: str) -> None:
    """Fish completes the same, with descriptions."""
    done = subprocess.run(
        ["fish", "--no-config", "-c", "irons completion fish | source; complete -C $argv[1]", typed],
        env=home,
        cwd=work(home),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert shown in done.stdout.splitlines()


@pytest.mark.parametrize("shell", SCRIPTS)
def test_the_script_is_printed(run_irons: Runner, shell: str) -> None:
    """`irons completion SHELL` prints the script as it is, ready for eval."""
    assert run_irons("completion", shell).ok().out == SCRIPTS[shell]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_is_sound(shell: str, machine: Machine) -> None:
    """The shell itself finds no fault in the script."""
    machine.require(shell)
    subprocess.run([shell, "-n"], input=SCRIPTS[shell], text=True, check=True, timeout=60)
