"""The error of a daemon that does not run as it should; apart from what starts one, which few commands import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from irons.errors import LocalError

if TYPE_CHECKING:
    from irons_local.paths import Paths

START_WITHIN = 90.0
"""Seconds that a keeper may take: it fails earlier where it can; on a busy machine it may have to wait for its turn."""


def broken(paths: Paths, why: str) -> LocalError:
    """Return the error that says what ails the daemon, and where its logs are."""
    return LocalError(
        f"the irons daemon failed: {why}",
        hint=f"`irons local logs` shows more; logs are in {paths.logs}",
    )
