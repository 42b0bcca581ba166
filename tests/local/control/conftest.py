"""Fixtures of the control plane's tests."""

from __future__ import annotations

import functools
from types import ModuleType

import pytest
from tests.local.control.gateway_logs import logs

from irons_local.control import reserve
from irons_local.control.api import sandboxes
from irons_local.control.audit import ingest, log
from irons_local.control.clients import gateways, keeper
from irons_local.control.http import listeners
from irons_local.control.http.phases import TimesAllowed
from irons_local.control.metrics import collect

__all__ = ["logs"]

HOUR = 3600.0
_LIMITS: tuple[tuple[ModuleType, str], ...] = (
    (collect, "_WITHIN"),
    (gateways, "_RENEWED_WITHIN"),
    (gateways, "_SPARE_WITHIN"),
    (gateways, "_WITHIN"),
    (ingest, "_STILLBORN"),
    (keeper, "_PLACED_WITHIN"),
    (keeper, "_PROGRAM_WITHIN"),
    (log, "_CATCHING_UP"),
    (sandboxes, "_PATIENCE"),
)
"""Seconds in which something of the tests' own process comes, unless that process stands still."""


@pytest.fixture(autouse=True)
def _unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep limits away from what must succeed, however long this machine stands still; a test of a limit sets it."""
    for module, name in _LIMITS:
        monkeypatch.setattr(module, name, HOUR)
    for client, name in ((gateways.Gateways, "stats"),):
        monkeypatch.setattr(client, name, functools.partialmethod(getattr(client, name), within=HOUR))
    monkeypatch.setattr(listeners, "TIMES", TimesAllowed(*[HOUR] * len(TimesAllowed._fields)))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set little room aside, and look for no plugins: the one fills the memory that tests lie in, the other reads all packages."""
    monkeypatch.setattr(reserve, "PIECE", 4096)
    monkeypatch.setattr(reserve, "SIZE", 4096 * reserve.PIECES)
    monkeypatch.setenv("IRONS_PLUGINS", "")
