"""How many workers the gateway has."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from irons_local.config import worker_count


@pytest.mark.parametrize(("processors", "workers"), [(1, 1), (2, 2), (4, 4), (5, 4), (96, 4)])
def test_there_is_one_for_each_processor_and_four_at_most(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, processors: int, workers: int
) -> None:
    """Processors that this process may not use do not count, and neither does a file that is not there."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(processors)))
    assert worker_count.wanted(tmp_path / "config.toml") == workers


@pytest.mark.parametrize(
    ("settings", "workers"),
    [
        ("[local]\ngateway_workers = 7\n", 7),
        ("[local]\ngateway_workers = 0\n", 3),
        ("[local]\ngateway_workers = true\n", 3),
        ('[local]\ngateway_workers = "2"\n', 3),
        ("[local]\n", 3),
        ("local = 5\n", 3),
        ("[local", 3),
    ],
)
def test_the_settings_file_may_say_another_number(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, settings: str, workers: int
) -> None:
    """What is not a number of workers leaves the default: the control plane, which reads the same file, says what is wrong."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 2})
    path = tmp_path / "config.toml"
    path.write_text(settings)
    assert worker_count.wanted(path) == workers
