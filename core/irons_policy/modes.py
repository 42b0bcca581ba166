"""The modes and the verdicts of a policy, as data. Commands read these at every start, so the module imports little."""

from __future__ import annotations

from typing import Final, Literal

Mode = Literal["warn", "deny"]
MODES: Final[tuple[Mode, ...]] = ("warn", "deny")
"""`deny` enforces the rules; `warn` waives their verdicts, and nothing else."""
Verdict = Literal["allowed", "blocked", "warn"]
VERDICTS: Final[tuple[Verdict, ...]] = ("allowed", "blocked", "warn")
"""The verdict of the rules on an attempt; `warn` is what only mode warn let pass."""
