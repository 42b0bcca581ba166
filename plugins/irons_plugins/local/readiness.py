"""Old name of `irons_local.doctor.readiness`, kept for one release: a control plane from before the move imports it late."""

from __future__ import annotations

from irons_local.doctor.readiness import cause, doubtful, explained, obstacle, refused

__all__ = ["cause", "doubtful", "explained", "obstacle", "refused"]
