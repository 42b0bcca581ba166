"""The real keeper with stand-ins for the gateway and the control plane, in the foreground: `keeper.py GATEWAY SERVER VERSION WORKERS PATIENCE`.

How long it waits for a worker before it refuses connections is the test's to say; what else it would give up when this
machine stands still, it waits for as long as a test may take.
"""

from __future__ import annotations

import os
import sys

from irons_local.forkserver.confine import GATEWAY_ID
from irons_local.ipc.unixsock import listen
from irons_local.keeper import daemonize
from irons_local.keeper.cells import standby
from irons_local.keeper.keeper import Keeper, warm
from irons_local.keeper.supervise import assignment, succession, workers
from irons_local.keeper.supervise.spawn import Plan
from irons_local.paths import Paths

_UNHURRIED = 600.0


def main(gateway: str, server: str, version: str, count: str, patience: str) -> None:
    """Run it; "ready" on stdout says that it takes requests."""
    standby._PATIENCE = workers._BEGUN_WITHIN = float(patience)
    succession._SURRENDER_WITHIN = assignment.DEATHS_WITHIN = _UNHURRIED
    paths = Paths.of().create()
    if os.geteuid() == 0:
        os.chown(paths.gateway, GATEWAY_ID, GATEWAY_ID)
    daemonize.prepare(daemonize.lock(paths))
    server_plan = Plan(
        "server", ["-P", server], paths.local, paths.logs / "server.log", paths.local, paths.runtime
    )
    keeper = Keeper(
        paths,
        listen(paths.keeper_socket),
        warm(paths, gateway, "-P"),
        server_plan,
        workers=int(count),
        version=version,
    )
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    keeper.run()


if __name__ == "__main__":
    main(*sys.argv[1:6])
