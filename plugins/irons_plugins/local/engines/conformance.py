"""Old name of `irons_local.engines.conformance`, kept for one release: tests of third parties import it."""

from __future__ import annotations

from irons_local.engines.conformance import CHECKS, Bench, NotConformingError, Ran, expect

__all__ = ["CHECKS", "Bench", "NotConformingError", "Ran", "expect"]
