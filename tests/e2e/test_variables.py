"""Where the value of `create --env` is found: in one file."""

from __future__ import annotations

import re
from dataclasses import replace

from tests.e2e.lab import Person, holding
from tests.e2e.sampling import argument_lists

MARKER = "marker-7b1d90ae"


def test_a_variables_value_is_in_one_file(person: Person) -> None:
    """Sessions have it, also after a restart; it is in no argument list, answer, log, database or saved image."""
    owner = replace(person, more={"API_KEY": MARKER})
    archive = person.home / "saved.tar"
    try:
        with argument_lists() as lists:
            owner.ok("create", "keyed", "--env", "API_KEY", timeout=180)
            script = 'echo "$API_KEY"; grep -c API_KEY /run/irons/environment; date > /srv/changed 2>/dev/null; date > changed'
            assert person.inside("keyed", script).stdout == f"{MARKER}\n1\n"
            said = person.ok("status", "keyed", "-o", "json") + person.ok("local", "logs")
            person.ok("stop", "keyed", timeout=180)
            person.ok("local", "image", "save", "keyed", "--as", "keyed", timeout=180)
            person.ok("local", "image", "export", str(archive), "--image", "keyed", timeout=180)
            person.ok("start", "keyed", timeout=180)
            assert person.inside("keyed", 'echo "$API_KEY"').stdout == f"{MARKER}\n"
        assert not [line for line in lists if MARKER.encode() in line]
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
