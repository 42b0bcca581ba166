"""The control plane's parts, together: what every handler can reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from irons_local.config.server import Config
from irons_local.paths import Places
from irons_plugins.local.control import times
from irons_plugins.local.control.audit import Audit
from irons_plugins.local.control.deadlines import Deadlines
from irons_plugins.local.control.doors import Doors
from irons_plugins.local.control.egress import Egress
from irons_plugins.local.control.gateways import Gateways
from irons_plugins.local.control.holds import Holds
from irons_plugins.local.control.keeper import Keeper
from irons_plugins.local.control.keyring import KeyRing
from irons_plugins.local.control.lifecycle import Lifecycle
from irons_plugins.local.engines import Engine
from irons_plugins.local.store import Store


@dataclass(frozen=True, slots=True)
class Plane:
    """One control plane.

    Attributes:
        places: the backend's directories.
        config: how it was told to be.
        store: its database.
        keeper: the keeper.
        gateways: the gateway's workers.
        engines: what makes machines, by name.
        doors: the SSH ports.
        egress: rules and modes.
        lifecycle: sandboxes' states.
        deadlines: what ends sandboxes by time.
        holds: what ends sandboxes with their clients.
        audit: events.
        keys: who may come over TCP.
        began: when it started, microseconds since 1970.
    """

    places: Places
    config: Config
    store: Store
    keeper: Keeper
    gateways: Gateways
    engines: Mapping[str, Engine]
    doors: Doors
    egress: Egress
    lifecycle: Lifecycle
    deadlines: Deadlines
    holds: Holds
    audit: Audit
    keys: KeyRing
    began: int = field(default_factory=times.now)
