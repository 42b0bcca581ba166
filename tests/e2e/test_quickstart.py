"""`make quickstart`'s program, in a home of its own on the lab's host."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.e2e.lab import Lab, eventually

PROGRAM = Path(__file__).parents[2] / "docs" / "quickstart.py"


def test_the_quickstart_walks_the_whole_path_and_leaves_nothing_running(
    lab: Lab, place: Path, image_tar: Path
) -> None:
    """It needs nothing but an image, says what is allowed and what is refused, and ends its backend.

    So does the tour through the code, with the same image.
    """
    home = place / "quick"
    home.mkdir(mode=0o700)
    env = {
        "HOME": str(home),
        "PATH": os.environ["PATH"],
        "IMAGE": str(image_tar),
        "TZ": "UTC",
        "LANG": "C.UTF-8",
    }
    outputs = []
    for _ in range(2):
        done = subprocess.run(
            [*lab.enter(), sys.executable, str(PROGRAM)],
            env=env,
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        outputs.append(done.stdout)
    eventually(lambda: not _running(home), what="its processes to be gone")
    shown = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "TIME", outputs[1])
    assert "hello from quickstart, as irons" in shown
    assert shown.count("Hello, this is docs.example.test.") == 2
    assert shown.count("Hello, this is tracker.example.test.") == 1
    assert "TIME  ALLOWED  docs.example.test  (mode: warn)" in shown
    assert "TIME  DENIED   tracker.example.test  (mode: deny)" in shown
    assert "TIME  DENIED   pastebin.example.com  (mode: deny)" in shown
    tour = subprocess.run(
        [*lab.enter(), sys.executable, str(PROGRAM), "--tour"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert tour.returncode == 0, tour.stdout + tour.stderr
    assert "Hello from outside." in tour.stdout
    assert "  Entry.close\n" in tour.stdout
    eventually(lambda: not _running(home), what="its processes to be gone")
    removed = subprocess.run([*lab.enter(), sys.executable, str(PROGRAM), "--remove"], env=env, check=False)
    assert removed.returncode == 0
    assert not (home / ".cache" / "irons-quickstart").exists()
    first, second = (re.sub(r"TIME|\d+", "N", text[text.index("# Two stand-in") :]) for text in outputs)
    assert first == second


def _running(home: Path) -> list[str]:
    """Processes whose environment names that home."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"HOME={home}\0".encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_text())
        except OSError:
            continue
    return found
