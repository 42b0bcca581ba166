"""The control plane's parts, together: what every handler can reach."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from irons_local import times
from irons_local.config.server import ServerConfig
from irons_local.control.audit.change_log import ChangeLog
from irons_local.control.audit.log import Audit
from irons_local.control.clients.gateways import Gateways
from irons_local.control.clients.keeper import KeeperClient
from irons_local.control.egress.questions import QuestionDesk
from irons_local.control.egress.rules_and_modes import Egress
from irons_local.control.metrics.tally import EventTally
from irons_local.control.sandbox.copies import SandboxCopies
from irons_local.control.sandbox.deadlines import SandboxDeadlines
from irons_local.control.sandbox.holds import Holds
from irons_local.control.sandbox.lifecycle import Lifecycle
from irons_local.control.sandbox.ssh_ports import SshPorts
from irons_local.control.store.database import Store
from irons_local.control.store.keyring import KeyRing
from irons_local.engines.protocol import Engine
from irons_local.paths import Paths

if TYPE_CHECKING:
    from irons_local.control.fleet.fleet import Fleet


@dataclass(frozen=True, slots=True)
class Plane:
    """One control plane.

    Attributes:
        paths: the backend's directories.
        config: its configuration.
        store: its database.
        keeper: the keeper.
        gateways: the gateway's workers.
        engines: what makes machines, by name.
        doors: the SSH ports.
        egress: rules and modes.
        lifecycle: sandboxes' states.
        deadlines: what ends sandboxes by time.
        copies: snapshots, and sandboxes made from them.
        holds: what ends sandboxes with their clients.
        questions: what people are asked.
        audit: events.
        changes: the change log.
        keys: who may come over TCP.
        fleet: the members of the fleet; None where the server has none.
        began: when it started, microseconds since 1970.
        tally: counts of the audit log for `GET /metrics`.
    """

    paths: Paths
    config: ServerConfig
    store: Store
    keeper: KeeperClient
    gateways: Gateways
    engines: Mapping[str, Engine]
    doors: SshPorts
    egress: Egress
    lifecycle: Lifecycle
    deadlines: SandboxDeadlines
    copies: SandboxCopies
    holds: Holds
    questions: QuestionDesk
    audit: Audit
    changes: ChangeLog
    keys: KeyRing
    fleet: Fleet | None = None
    began: int = field(default_factory=times.now)
    tally: EventTally = field(default_factory=EventTally)
