"""The control plane as the tour runs it: the real one, with its calls recorded."""

from __future__ import annotations

import sys

from tools.tour import tracing
from tools.tour.stops import GATEWAY, STOPS

from irons_local.control import server

if __name__ == "__main__":
    tracing.begin(tracing.codes(tuple(range(len(GATEWAY), len(STOPS)))))
    sys.exit(server.main())
