"""The real keeper with stand-ins for the gateway and the control plane: `keeper.py GATEWAY SERVER VERSION WORKERS`, in the foreground."""

from __future__ import annotations

import os
import sys

from irons_local.forkserver.confine import GATEWAY_ID
from irons_local.ipc.unixsock import listen
from irons_local.keeper import daemonize
from irons_local.keeper.keeper import Keeper, warm
from irons_local.keeper.supervise.spawn import Plan
from irons_local.paths import Paths


def main(gateway: str, server: str, version: str, workers: str) -> None:
    """Run it; "ready" on stdout says that it takes requests."""
    places = Paths.of().create()
    if os.geteuid() == 0:
        os.chown(places.gateway, GATEWAY_ID, GATEWAY_ID)
    daemonize.prepare(daemonize.lock(places))
    server_plan = Plan(
        "server", ["-P", server], places.local, places.logs / "server.log", places.local, places.runtime
    )
    keeper = Keeper(
        places,
        listen(places.keeper_socket),
        warm(places, gateway, "-P"),
        server_plan,
        workers=int(workers),
        version=version,
    )
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    keeper.run()


if __name__ == "__main__":
    main(*sys.argv[1:5])
