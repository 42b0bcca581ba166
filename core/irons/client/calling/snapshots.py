"""The calls about snapshots and copies of sandboxes; all need irons' own server."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from irons.client.calling.calls import Calls, segment
from irons.client.models.fields import rows_of

if TYPE_CHECKING:
    from typing import Unpack

    from irons.client.made import MadeSandboxes
    from irons.client.models.sandboxes import CopyPolicy
    from irons.client.models.snapshots import Forked, SnapshotInfo

COPIED_WITHIN = 3600.0
"""Seconds that the files of a sandbox may take to be copied."""


class SnapshotCalls(Calls):
    """What `irons.client.api.Api` answers about snapshots and copies."""

    @property
    def made(self) -> MadeSandboxes:
        """Which sandboxes the settings' profile made here."""
        from irons.client.made import MadeSandboxes

        return MadeSandboxes.of(self._settings)

    def snapshots(self, sandbox: str | None = None) -> tuple[SnapshotInfo, ...]:
        """Return the snapshots of a sandbox, or all there are, oldest first."""
        from irons.client.models.snapshots import SnapshotInfo

        self._need_snapshots()
        path = "/snapshots" if sandbox is None else f"/sandboxes/{segment(sandbox)}/snapshots"
        return tuple(map(SnapshotInfo.of, rows_of(self.call("GET", path), "snapshots")))

    def snapshot(self, sandbox: str, name: str | None = None, *, note: str | None = None) -> SnapshotInfo:
        """Keep the files, the rules and the mode of a sandbox as they are now.

        Args:
            sandbox: Its name. One that runs is paused as briefly as can be, and goes on.
            name: What to call the snapshot; by default the sandbox's name with a number.
            note: A text of at most 200 characters.

        Raises:
            Conflict: There is a snapshot of this name, or the sandbox is neither ready nor stopped.
        """
        from irons.client.models.snapshots import SnapshotInfo

        self._need_snapshots()
        asked = {"name": name, "note": note}
        body = {key: value for key, value in asked.items() if value is not None}
        path = f"/sandboxes/{segment(sandbox)}/snapshots"
        return SnapshotInfo.of(self.call("POST", path, body, retry=False, patience=COPIED_WITHIN))

    def remove_snapshot(self, name: str) -> None:
        """Remove a snapshot; sandboxes that were made from it stay whole."""
        self._need_snapshots()
        self.call("DELETE", f"/snapshots/{segment(name)}", patience=COPIED_WITHIN)

    def restore(self, sandbox: str, snapshot: str) -> SnapshotInfo:
        """Put the files of a snapshot of a stopped sandbox in place of its own; its rules and its mode stay.

        Returns:
            The snapshot that keeps the files that were there.

        Raises:
            Conflict: The sandbox is not stopped, or the snapshot is of another one.
        """
        from irons.client.models.snapshots import SnapshotInfo

        self._need_snapshots()
        path = f"/sandboxes/{segment(sandbox)}/restore"
        return SnapshotInfo.of(
            self.call("POST", path, {"snapshot": snapshot}, retry=False, patience=COPIED_WITHIN)
        )

    def fork(
        self, sandbox: str, names: Iterable[str], *, held: bool = False, **policy: Unpack[CopyPolicy]
    ) -> Forked:
        """Make copies of a sandbox as it is now, all of them or none, and have them started.

        Args:
            sandbox: Its name.
            names: What to call the copies.
            held: Whether each is destroyed when no call holds it for a minute (`Api.hold`).
            policy: `mode` and `rules` of the copies; by default those of the sandbox.

        Raises:
            Conflict: A name is taken, or the sandbox is neither ready nor stopped.
        """
        from irons.client.models.snapshots import Forked

        self._need_snapshots()
        asked = {**policy, "held": held or None}
        if held:
            self.need("fork-held", "a server that ends a copy with its client")
        body = {"names": list(names), **{key: value for key, value in asked.items() if value is not None}}
        path = f"/sandboxes/{segment(sandbox)}/fork"
        found = Forked.of(self.call("POST", path, body, retry=False, patience=COPIED_WITHIN))
        for each in found.sandboxes:
            self.made.add(each.id)
        return found

    def _need_snapshots(self) -> None:
        self.need("snapshots", "a server that makes snapshots")
