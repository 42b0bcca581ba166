"""Processes that tests start in the sandbox of `into`, which is this machine: how they are found again, and how its server is killed."""

from __future__ import annotations

import secrets
from pathlib import Path


def seconds() -> str:
    """Return how long a `sleep` takes that no other test has, nor another run of this one: its processes are found by it."""
    return str(1_000_000 + secrets.randbelow(10**9))


def running(token: str) -> list[str]:
    """Return the processes whose command line has a token."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if token.encode() in words:
            found.append(path.parent.name)
    return found


def kill_the_server(nap: str) -> str:
    """Return the lines of a program that kills the SSH server's process above it, and sleeps so long."""
    return f"""
at=$PPID
while read -r _ name _ parent _ </proc/$at/stat; do
  case $name in "(sshd"*) kill -9 "$at"; exec sleep {nap} ;; esac
  at=$parent
done"""
