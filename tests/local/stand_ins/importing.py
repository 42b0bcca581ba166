"""The real keeper, gateway and control plane, each of which says on stderr what it imports: run it with `-I -X importtime`."""

from __future__ import annotations

import os
import sys

from irons_local.forkserver.confine import GATEWAY_ID
from irons_local.ipc.unixsock import listen
from irons_local.keeper import daemonize
from irons_local.keeper.keeper import Keeper, plans
from irons_local.keeper.supervise.spawn import Plan
from irons_local.paths import Paths


def telling(plan: Plan) -> Plan:
    """The same plan, run by an interpreter that tells what is imported."""
    return plan._replace(argv=["-X", "importtime", *plan.argv])


def main() -> None:
    """Run them until the keeper is asked to end."""
    paths = Paths.of().create()
    if os.geteuid() == 0:
        os.chown(paths.gateway, GATEWAY_ID, GATEWAY_ID)
    daemonize.prepare(daemonize.lock(paths))
    warm, server = plans(paths)
    keeper = Keeper(paths, listen(paths.keeper_socket), telling(warm), telling(server), workers=1)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    keeper.run()


if __name__ == "__main__":
    main()
