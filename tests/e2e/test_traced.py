"""One create and one connection followed through the logs of all processes, and what these never hold."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import replace

from irons_local.log.line import parse
from tests.e2e.lab import Person, eventually

MARKER = "marker-9c2e71d4"
ASK = f"curl -s -m 60 -H 'Authorization: {MARKER}' -H 'Cookie: {MARKER}' -H 'Proxy-Authorization: {MARKER}' 'http://web.example.test/?q={MARKER}'"

STEPS = ("POST /sandboxes: 202", "cell.make", "policy active", "laid out", "boot has started", "started")


def test_one_request_and_one_connection_are_followed(person: Person) -> None:
    """The id of a create is in the log of every process that worked for it; at debug level no log holds a value."""
    owner = replace(person, more={"IRONS_LOG": "debug", "API_KEY": MARKER})
    person.run("local", "down")
    try:
        owner.ok("local", "up")
        made = owner.run("--debug", "create", "traced", "--env", "API_KEY", timeout=180)
        assert made.returncode == 0, made.stderr
        (request,) = set(re.findall(r"request ([0-9a-f]{16})", made.stderr))
        owner.run("exec", "traced", "--", "sh", "-c", f"cat >/dev/null; {ASK}; {ASK}", text=MARKER)

        def missing() -> set[str]:
            shown = json.loads(person.ok("local", "logs", "--request", request, "-n", "500", "-o", "json"))
            found = [(each["process"].partition("-")[0], parse(each["line"])) for each in shown]
            text = "\n".join(line.text for _, line in found if line is not None)
            steps = {step for step in STEPS if step not in text}
            return steps | ({"keeper", "server", "gateway"} ^ {process for process, _ in found})

        # What was done may be logged after it was answered.
        with suppress(AssertionError):
            eventually(lambda: not missing(), within=60)
        assert missing() == set()

        def followed() -> bool:
            about = json.loads(person.ok("local", "logs", "--sandbox", "traced", "-n", "500", "-o", "json"))
            lines = [line for each in about if (line := parse(each["line"])) is not None]
            of = {line.connection for line in lines if "web.example.test" in line.text and line.connection}
            texts = [line.text for line in lines if line.connection in of]
            return all(
                any(each.startswith(step) for each in texts) for step in ("accepted", "let through", "closed")
            )

        eventually(followed, what="the connection to end")
        logs = person.home / ".local/state/irons/local/logs"
        assert [path.name for path in logs.iterdir() if MARKER in path.read_text(errors="replace")] == []
    finally:
        person.run("destroy", "traced", "--force", timeout=180)
        person.run("local", "down")
        person.ok("local", "up")
