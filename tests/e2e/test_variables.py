"""Where the value of `create --env` is found: in one file."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from tests.e2e.lab import Person, holding

MARKER = "marker-7b1d90ae"


@contextmanager
def _argument_lists() -> Iterator[set[str]]:
    """The argument lists of all processes that hold the marker, sampled without a pause."""
    found: set[str] = set()
    over = threading.Event()

    def sample() -> None:
        while not over.is_set():
            for process in Path("/proc").glob("[0-9]*"):
                with suppress(OSError):
                    line = (process / "cmdline").read_bytes()
                    if MARKER.encode() in line:
                        found.add(line.decode(errors="replace"))

    sampling = threading.Thread(target=sample)
    sampling.start()
    try:
        yield found
    finally:
        over.set()
        sampling.join()


def test_a_variables_value_is_in_one_file(person: Person) -> None:
    """Sessions have it, also after a restart; it is in no argument list, answer, log, database or saved image."""
    owner = replace(person, more={"API_KEY": MARKER})
    archive = person.home / "saved.tar"
    try:
        with _argument_lists() as lists:
            owner.ok("create", "keyed", "--env", "API_KEY", timeout=180)
            script = 'echo "$API_KEY"; grep -c API_KEY /run/irons/environment; date > /srv/changed 2>/dev/null; date > changed'
            assert person.inside("keyed", script).stdout == f"{MARKER}\n1\n"
            said = person.ok("status", "keyed", "-o", "json") + person.ok("local", "logs")
            person.ok("stop", "keyed", timeout=180)
            person.ok("local", "image", "save", "keyed", "--as", "keyed", timeout=180)
            person.ok("local", "image", "export", str(archive), "--image", "keyed", timeout=180)
            person.ok("start", "keyed", timeout=180)
            assert person.inside("keyed", 'echo "$API_KEY"').stdout == f"{MARKER}\n"
        assert not lists
        assert MARKER not in said
        assert MARKER.encode() not in archive.read_bytes()
        (place,) = holding(person.home, MARKER.encode())
        assert re.fullmatch(r"\.local/state/irons/local/sandboxes/sb_\w+/settings/environment", place)
        assert (person.home / place).stat().st_mode & 0o777 == 0o600
    finally:
        person.run("destroy", "keyed", "--force", timeout=180)
        person.run("local", "image", "remove", "keyed")
        archive.unlink(missing_ok=True)
    assert holding(person.home, MARKER.encode()) == []
