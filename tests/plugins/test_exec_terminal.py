"""`exec` on a shell's terminal: the keys are its own only while it runs in the foreground."""

from __future__ import annotations

from tests.repl.terminal import Terminal

from .conftest import Irons, until
from .remote_processes import running, seconds


def test_a_stopped_exec_leaves_the_keys_to_the_shell(into: Irons) -> None:
    """After Ctrl-Z, and after bg, the shell reads every key: the kept connection reads none, and none stops the job."""
    nap = seconds()
    env = {**into.env, "TERM": "xterm", "PS1": "here> "}
    with Terminal(["bash", "--norc", "--noprofile", "-i"], env) as screen:
        screen.until("here>")
        screen.send(f"{' '.join(into.argv('exec', 'one'))} -- sh -c 'sleep {nap}'\r")
        until(lambda: running(nap))
        screen.send("\x1a")
        screen.until("Stopped")
        for number in range(5):
            screen.send(f"echo $(({number}+100))\r")
            screen.until(rf"\n{number + 100}\n")
        screen.send("bg; fg=no\r")
        for number in range(5):
            screen.send(f"echo $(({number}+200))\r")
            screen.until(rf"\n{number + 200}\n")
        screen.send("jobs | grep -c Running\r")
        screen.until(r"\n1\n")
        screen.send("fg\r")
        screen.until(r"\n\S+ -m irons exec")
        screen.until(screen.runs_a_job)
        screen.send("\x03")
        screen.until("interrupted")
        until(lambda: not running(nap))
        screen.send("exit\r")
        screen.ended()
