"""A sandbox behind a company proxy, with names from the host's hosts file and from SRV records, by the whole daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from tests.e2e.lab import Lab, Person, eventually, holding
from tests.local.gateway.test_proxy import PORT, PUBLIC, company, no_direct_way

CONFIG = f'[local]\nupstream_proxy = "http://me:s3cr3t@{PUBLIC}:{PORT}"\nno_proxy = ["other.example.test"]\n'


def test_a_sandbox_works_behind_a_company_proxy(
    lab: Lab, make_person: Callable[..., Person], tmp_path: Path
) -> None:
    """What the configuration says reaches the gateway: the proxy carries what is allowed, and its password shows nowhere."""
    person = make_person(config=CONFIG)
    hosts = lab.directory / "hosts"
    before = hosts.read_text()
    with company(lab, tmp_path / "proxy.log", PUBLIC) as proxy, no_direct_way(lab):
        try:
            hosts.write_text(f"{before}203.0.113.10 intranet\n")
            person.ok("create", "box", timeout=180)
            for rule in ("web.example.test", "db.example.test:5432", "intranet"):
                person.ok("egress", "allow", rule)
            person.ok("egress", "mode", "deny")
            for name in ("web.example.test", "intranet"):
                done = person.inside("box", f"curl -sS http://{name}/")
                assert '"line": "GET / HTTP/1.1"' in done.stdout, done.stderr
            assert proxy.targets() == ["CONNECT 203.0.113.10:80"] * 2
            found = json.loads(
                person.ok("egress", "check", "--live", "web.example.test", "--sandbox", "box", "-o", "json")
            )
            assert (found["live"]["outcome"], found["live"]["proxy"]) == ("reached", True)
            eventually(lambda: [each for each in person.events("box") if each["protocol"] == "check"])
            shown = "".join(
                person.run(*words).stdout
                for words in (
                    ("config", "show"),
                    ("local", "status"),
                    ("local", "logs"),
                    ("audit", "egress", "box", "-o", "json"),
                )
            )
            assert "s3cr3t" not in shown
            assert holding(person.home, b"s3cr3t") == [".config/irons/config.toml"]
        finally:
            hosts.write_text(before)
            person.run("destroy", "box", "--force", timeout=180)
