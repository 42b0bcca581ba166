"""Old name of `irons_local.engines.protocol`, kept for one release: engines of third parties import it."""

from __future__ import annotations

from irons_local.cell.layout import Namespaces
from irons_local.engines.protocol import (
    CELL_ADDRESS,
    CELL_DNS,
    SSH_PORT,
    USERNAME,
    Activity,
    Admits,
    Booter,
    Cells,
    Engine,
    EngineMaker,
    Kit,
    Look,
    Made,
    Observer,
    Spec,
)
from irons_local.errors import CellError, EngineError
from irons_local.limits import Limits
from irons_local.progress import Progress, unheard

__all__ = [
    "CELL_ADDRESS",
    "CELL_DNS",
    "SSH_PORT",
    "USERNAME",
    "Activity",
    "Admits",
    "Booter",
    "CellError",
    "Cells",
    "Engine",
    "EngineError",
    "EngineMaker",
    "Kit",
    "Limits",
    "Look",
    "Made",
    "Namespaces",
    "Observer",
    "Progress",
    "Spec",
    "unheard",
]
