"""The last policy of each cell on a member, on its disk: it holds while the server is away, and no older one takes its place."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from irons.files import write_whole
from irons_local import clocks
from irons_local.ipc.fields import SANDBOX_ID
from irons_local.ipc.framing import RequestError
from irons_local.member.identity import read_state

_BOOT = Path("/proc/sys/kernel/random/boot_id")


class KeptPolicy(NamedTuple):
    """A policy.

    Attributes:
        epoch: of the join that it came after.
        revision: its number among those of that epoch.
        about: what the gateway knows of the sandbox besides.
        policy: as the gateway takes it.
        boot: of which boot its `until_up` are.
    """

    epoch: str
    revision: int
    about: Mapping[str, Any]
    policy: Mapping[str, Any]
    boot: str


class PolicyBook:
    """The policies of a member's cells.

    Args:
        directory: has a file for each; made when it is needed.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._boot = _BOOT.read_text().strip()
        self._one = threading.Lock()
        self._kept = {
            path.stem: kept
            for path in directory.glob("*.json")
            if SANDBOX_ID.fullmatch(path.stem) and (kept := self._read(path)) is not None
        }

    def cells(self) -> list[str]:
        """The cells of which there is a policy."""
        return sorted(self._kept)

    def get(self, cell: str) -> KeptPolicy | None:
        """The policy of a cell."""
        return self._kept.get(cell)

    def revisions(self, epoch: str) -> dict[str, int]:
        """The revision of each policy of an epoch, by its cell."""
        return {cell: kept.revision for cell, kept in dict(self._kept).items() if kept.epoch == epoch}

    def made(
        self,
        epoch: str,
        revision: int,
        about: Mapping[str, Any],
        policy: Mapping[str, Any],
        lefts: Sequence[Any],
    ) -> KeptPolicy:
        """A policy as it is kept.

        Args:
            epoch: of the link that it came over.
            revision: its number.
            about: what the gateway knows of the sandbox besides.
            policy: as it arrived.
            lefts: what is left of each of its rules, microseconds by the clock that no step moves; None for the others.

        Raises:
            RequestError: it is malformed.
        """
        return KeptPolicy(epoch, revision, about, _timed(policy, lefts), self._boot)

    def put(self, cell: str, kept: KeptPolicy) -> None:
        """Keep a policy, in place of the one before; it is on the disk when this returns.

        Raises:
            RequestError: it is older than the one there is.
            OSError: it cannot be written. It is the one there is all the same, until this process ends; the one before is not.
        """
        with self._one:
            known = self._kept.get(cell)
            if known is not None and known.epoch == kept.epoch and kept.revision < known.revision:
                raise RequestError(
                    "older",
                    f"the policy {kept.revision} of {cell} is older than {known.revision}, which is active",
                )
            self._kept[cell] = kept
            path = self._directory / f"{cell}.json"
            try:
                write_whole(path, json.dumps(kept._asdict()), durable=True)
            except OSError:
                # The next process must not make a rule active again that has ended: the gateway has a copy of its own.
                with contextlib.suppress(OSError):
                    path.unlink(missing_ok=True)
                raise

    def forget(self, cell: str) -> None:
        """Forget a cell for good.

        Raises:
            OSError: its file cannot be removed.
        """
        (self._directory / f"{cell}.json").unlink(missing_ok=True)
        self._kept.pop(cell, None)

    def _read(self, path: Path) -> KeptPolicy | None:
        found = read_state(path)
        try:
            kept = KeptPolicy(
                str(found["epoch"]),
                int(found["revision"]),
                dict(found["about"]),
                dict(found["policy"]),
                str(found["boot"]),
            )
        except (LookupError, TypeError, ValueError):
            # The gateway has its own copy, and denies all without one.
            return None
        if kept.boot == self._boot:
            return kept
        # That clock began again with this boot; the wall clock's end is left.
        return kept._replace(policy=_timed(kept.policy, ()), boot=self._boot)


def _timed(policy: Mapping[str, Any], lefts: Sequence[Any]) -> dict[str, Any]:
    """A policy whose rules end by this machine's clocks."""
    rules = policy.get("rules", [])
    if not isinstance(rules, list) or not all(isinstance(rule, dict) for rule in rules):
        raise RequestError("input", "a policy's rules are a list of objects")
    now = clocks.moment()
    made = []
    for index, rule in enumerate(rules):
        left = lefts[index] if index < len(lefts) else None
        timed = {name: value for name, value in rule.items() if name != "until_up"}
        if type(left) is int and left >= 0:
            timed["until_up"] = now.up + left
        made.append(timed)
    return {**policy, "rules": made}
