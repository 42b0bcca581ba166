"""What the tour's warm process forks: a worker of the gateway that records its calls in its directory."""

from __future__ import annotations

from tools.tour import tracing
from tools.tour.stops import GATEWAY

from irons_local.gateway import __main__ as gateway

# Imported while the warm process may still read files.
_WATCHED = tracing.codes(tuple(range(len(GATEWAY))))


def main() -> int:
    """Run the worker; see the real one."""
    tracing.begin(_WATCHED)
    return gateway.main()
