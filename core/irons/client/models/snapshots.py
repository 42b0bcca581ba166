"""Snapshots: what the API answers about them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from irons.client.models.fields import rows_of, text_of, time_of, whole_of
from irons.client.models.sandboxes import Sandbox
from irons.record import NamedTuple


class SnapshotInfo(NamedTuple):
    """A snapshot of a sandbox.

    Attributes:
        name: What it is called.
        sandbox: The name that its sandbox had then.
        created_at: When it was made.
        size: Bytes of disk that it adds to those of older ones; None until they are counted.
        pause: Seconds in which its sandbox was paused; None where it was stopped.
        note: The note that it was made with.
        image: The image that its sandbox is based on.
        id: What no other snapshot has, ever.
    """

    name: str
    sandbox: str
    created_at: datetime | None = None
    size: int | None = None
    pause: float | None = None
    note: str = ""
    image: str = ""
    id: str = ""

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> SnapshotInfo:
        """Read a row of `GET /snapshots`."""
        get = row.get
        return cls(
            name=text_of(get("name")),
            sandbox=text_of(get("sandbox")),
            created_at=time_of(get("created_at")),
            size=whole_of(get("size")),
            pause=_seconds(get("pause")),
            note=text_of(get("note")),
            image=text_of(get("image")),
            id=text_of(get("id")),
        )


class Forked(NamedTuple):
    """What a fork made.

    Attributes:
        sandboxes: The copies, which are being started.
        pause: Seconds in which the sandbox was paused; None where it was stopped.
    """

    sandboxes: tuple[Sandbox, ...]
    pause: float | None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Forked:
        """Read an answer of `POST /sandboxes/{name}/fork`."""
        return cls(tuple(map(Sandbox.of, rows_of(answer, "sandboxes"))), _seconds(answer.get("pause")))


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
