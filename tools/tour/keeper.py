"""The keeper as the tour runs it: the real one, in the foreground, with a gateway and a control plane that are traced."""

from __future__ import annotations

import os
import sys

from irons_local.forkserver.confine import GATEWAY_ID
from irons_local.ipc.unixsock import listen
from irons_local.keeper import daemonize
from irons_local.keeper.keeper import Keeper, plans, warm
from irons_local.keeper.supervise.spawn import STATE
from irons_local.paths import Paths


def main() -> int:
    """Run it; a line on stdout says that it takes requests. 1 where another keeper is there already."""
    paths = Paths.of().create()
    if os.geteuid() == 0:
        os.chown(paths.gateway, GATEWAY_ID, GATEWAY_ID)
    try:
        daemonize.prepare(daemonize.lock(paths))
    except daemonize.DaemonizeError as error:
        print(error, file=sys.stderr)
        return 1
    # From here on this process logs, as the keeper of a daemon does.
    log = os.open(paths.logs / "keeper.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    os.dup2(log, 2)
    os.close(log)
    _, server = plans(paths)
    keeper = Keeper(
        paths,
        listen(paths.keeper_socket),
        warm(paths, "tools.tour.gateway", "-P"),
        server._replace(argv=["-P", "-m", "tools.tour.control", STATE, str(paths.state)]),
    )
    print("ready", flush=True)
    keeper.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
