"""A fact of the field is known in one module: who needs it imports it from there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {
    str(path.relative_to(ROOT)): path.read_text("utf-8")
    for root in ("core", "plugins", "repl")
    for path in sorted((ROOT / root).rglob("*.py"))
}
PLACES = [
    (r"\"(warn|deny)\", \"(warn|deny)\"", {"core/irons_policy/modes.py"}),
    (r"\"(allow|deny)\", \"(allow|deny)\"[])}]", {"core/irons_policy/rules.py"}),
    (r"\"allowed\", \"blocked\", \"warn\"", {"core/irons_policy/modes.py"}),
    (r"\b(443, 80|80, 443)\b", {"core/irons_policy/patterns.py"}),
    (r"time_ns\(\) // 1_?000\b", {"plugins/irons_local/times.py"}),
    (r"use_errno=True", {"plugins/irons_local/linux/namespaces.py"}),
    (r"\"\.local/state", {"core/irons/settings/xdg.py", "core/irons/testing/__init__.py"}),
    (
        r"== \"localhost\"",
        {
            "core/irons/settings/loopback.py",
            "core/irons_policy/patterns.py",
            "plugins/irons_local/gateway/accept/dns.py",
        },
    ),
    (r"\"irons\.internal\"", {"core/irons_policy/hostnames.py"}),
    (r"2 ?\*\* ?63", {"core/irons_policy/event.py"}),
    (r"\[\{host\}\]:\{port\}", {"core/irons_policy/patterns.py"}),
]
"""What a fact looks like in code, and where it may: rules about the name `localhost` are a fact of their own."""


@pytest.mark.parametrize(
    ("fact", "places"), PLACES, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_fact_is_known_once(fact: str, places: set[str]) -> None:
    """It is found where it is named, and nowhere else."""
    assert {path for path, text in SOURCES.items() if re.search(fact, text)} == places
