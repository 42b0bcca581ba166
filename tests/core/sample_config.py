"""A configuration file with two profiles, an alias and a table of the local backend."""

from __future__ import annotations

from pathlib import Path

import pytest

from irons.settings.settings import config_path

FILE = """
# kept
profile = "work"
api_url = "https://top.example.com"
read_timeout = 7

[profiles.work]
api_url = "https://work.example.com"

[profiles.other]
connect_timeout = 2.5

[aliases]
st = "status -o json"

[local.hosts]
"name.test" = ["203.0.113.9"]
"""


@pytest.fixture
def config(irons_env: dict[str, str]) -> Path:
    """A configuration file with two profiles."""
    path = config_path(irons_env)
    path.parent.mkdir(parents=True)
    path.write_text(FILE)
    return path
