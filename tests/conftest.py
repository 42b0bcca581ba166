"""What holds for every test: an interrupted run takes its surroundings down, nobody's own settings count, and generated cases have no clock."""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import settings

pytest_plugins = ["tests.machine"]


def pytest_configure(config: pytest.Config) -> None:
    """End as Ctrl-C does, every fixture taken down, where a run is terminated or loses its terminal."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)


# What whoever runs the tests has set for irons is for their own sandboxes.
for _name in [name for name in os.environ if name.startswith("IRONS_") and name != "IRONS_TEST_IMAGE"]:
    del os.environ[_name]

# How long one generated case takes says more about the machine than about the code; CI's profile (hypothesis has one of
# its own where CI is set) also draws the same cases in each run.
settings.register_profile("unhurried", settings(), deadline=None)
settings.load_profile("unhurried")
