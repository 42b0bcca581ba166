"""What holds for every test: no one's own settings count, and generated cases have no clock."""

from __future__ import annotations

import os

import pytest

pytest_plugins = ["tests.parallel", "tests.machine", "tests.kinds", "tests.order", "tests.garbage"]

# What whoever runs the tests has set for irons is for their own sandboxes.
for _name in [
    name for name in os.environ if name.startswith("IRONS_") and not name.startswith("IRONS_TEST_")
]:
    del os.environ[_name]


def pytest_configure(config: pytest.Config) -> None:
    """Give generated cases no time limit, in the processes that run tests; hypothesis takes its time to import.

    How long one case takes says more about the machine than about the code. CI's profile (hypothesis has one of its own
    where CI is set) also draws the same cases in each run.
    """
    if config.getoption("numprocesses", None) and not hasattr(config, "workerinput"):
        return
    from hypothesis import settings

    settings.register_profile("unhurried", settings(), deadline=None)
    settings.load_profile("unhurried")
