"""What the processes of the local backend may do, and what they import while they may do more."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

OTHERS = """
import sys
before = set(sys.modules)
__import__({module!r})
for name in sorted(set(sys.modules) - before):
    if "site-packages" in (getattr(sys.modules[name], "__file__", None) or ""):
        print(name)
"""


@pytest.mark.parametrize("module", ["irons_plugins.local.keeper", "irons_plugins.local.confined"])
def test_no_code_of_third_parties_is_imported_with_all_rights(module: str) -> None:
    """The keeper, and what root's gateway runs before it has given up its rights, import the standard library and our own code only."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-I", "-c", OTHERS.format(module=module)],
        env=env,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == []
