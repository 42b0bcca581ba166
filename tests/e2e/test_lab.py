"""Tests of the lab itself: what an interrupted run needs to clean up after itself."""

from __future__ import annotations

import os

from tests.e2e.lab import Lab


def test_a_signal_to_the_run_leaves_the_lab(lab: Lab) -> None:
    """What holds the lab is in sessions of its own, so that people can be removed after Ctrl-C or `timeout`."""
    assert os.getsid(0) not in {os.getsid(lab.host), os.getsid(lab.internet)}
