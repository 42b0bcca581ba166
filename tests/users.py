"""Users of this machine that tests make and remove, next to others that do so at the same time."""

from __future__ import annotations

import subprocess
import threading
import time


def change_users(*words: str) -> None:
    """Run a program that changes this machine's users; while another one holds their files, it is tried again."""
    deadline = time.monotonic() + 60
    while (done := subprocess.run(words, capture_output=True, text=True, check=False)).returncode:
        assert "lock" in done.stderr, done.stderr
        assert time.monotonic() < deadline, done.stderr
        threading.Event().wait(0.05)
