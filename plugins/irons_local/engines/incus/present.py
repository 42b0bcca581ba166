"""The present run of a sandbox, as it is recorded in its directory: the network that it was given, and whether its boot steps run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

from irons.files import write_whole
from irons_local.cell.layout import Veth

_FILE = "run.json"


class PresentRun(NamedTuple):
    """A run.

    Attributes:
        veth: what of its cell outlives the keeper.
        services: it was started with its own boot steps.
        member: the machine of the fleet that it runs on; "" for this one.
        location: what Incus names that machine; "" where it is not a cluster, or it was not recorded.
    """

    veth: Veth
    services: bool
    member: str = ""
    location: str = ""

    @classmethod
    def read(cls, home: Path) -> PresentRun | None:
        """The run of a sandbox; None where it does not run."""
        try:
            body = json.loads((home / _FILE).read_bytes())
            veth = Veth(str(body["name"]), int(body["pid"]), int(body["started"]))
            return cls(
                veth, bool(body["services"]), str(body.get("member", "")), str(body.get("location", ""))
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def write(self, home: Path) -> None:
        """Record it, before the machine is started."""
        body = json.dumps(
            {
                **self.veth._asdict(),
                "services": self.services,
                "member": self.member,
                "location": self.location,
            }
        )
        write_whole(home / _FILE, body, durable=True, parents=False)

    @staticmethod
    def forget(home: Path) -> None:
        """Remove the record."""
        (home / _FILE).unlink(missing_ok=True)
