"""What one sandbox may use of this machine."""

from __future__ import annotations

from dataclasses import dataclass

from irons.text import size_text
from irons_local.errors import EngineError


@dataclass(frozen=True, slots=True)
class Limits:
    """What one sandbox may use; None: no limit.

    Attributes:
        cpus: processors' worth of time, such as 1.5.
        memory: bytes.
        disk: bytes of what the sandbox adds to its image.
        processes: processes and threads at once.
    """

    cpus: float | None = None
    memory: int | None = None
    disk: int | None = None
    processes: int | None = 4096

    def check(self) -> None:
        """Refuse what no machine could run in.

        Raises:
            EngineError: a limit is too low, with the least it can be.
        """
        least = {"cpus": 0.05, "memory": 32 << 20, "disk": 1 << 20, "processes": 16}
        for name, bound in least.items():
            value = getattr(self, name)
            if value is not None and not value >= bound:
                said = (lambda size: size_text(int(size))) if name in ("memory", "disk") else str
                raise EngineError("input", f"{name} can't be {said(value)}: the least is {said(bound)}")
