"""A gateway that has an hour for what it gives up after seconds, such as a client that does not begin.

`python -m tests.local.gateway.patient` runs it as `python -m irons_local.gateway` runs the other: for tests of what is not
finished, on a machine that may stand still before all of it is there.
"""

from __future__ import annotations

import functools
import sys

from irons_local.gateway import __main__ as gateway
from irons_local.gateway import service
from irons_local.gateway.accept import waiting
from irons_local.gateway.budget import patience
from irons_local.gateway.conversation import reaching
from irons_local.gateway.decide import internal_page
from irons_local.gateway.reach.resolve import Resolver

HOUR = 3600.0

if __name__ == "__main__":
    for name in ("FRAME", "GRACE_DENIED", "HEAD", "PATIENCE", "REQUEST", "WHOLE"):
        setattr(patience, name, HOUR)
    for module, name in ((internal_page, "TIMEOUT"), (reaching, "RESOLVE_HERE"), (waiting, "PATIENCE")):
        setattr(module, name, HOUR)
    for module, name in ((service, Resolver.__name__),):
        setattr(module, name, functools.partial(Resolver, timeout=HOUR))
    sys.exit(gateway.main())
