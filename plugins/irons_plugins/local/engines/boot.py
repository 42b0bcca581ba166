"""Old name of `irons_local.engines.namespace.boot`, kept for one release."""

from __future__ import annotations

from irons_local.engines.namespace.boot import BootAnswer as Answer
from irons_local.engines.namespace.boot import BootOrder as Order
from irons_local.engines.namespace.boot import Inherited, boot, carry_out

__all__ = ["Answer", "Inherited", "Order", "boot", "carry_out"]
