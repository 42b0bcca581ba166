"""What of the ways out (`tests.e2e.attempts`) is not tried in a container of Incus, or says nothing there, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping

ATTEMPTS: Mapping[str, str] = {
    "another route": "its routes are its own, and without them the session ends",
    "another link": "its devices are its own",
    "another address": "its addresses are its own",
}
"""Not tried."""

SUCCEEDS_INSIDE: Mapping[str, str] = {
    "raw sockets": "its root may make them; what they send arrives in the cell",
    "the packet filter": "its packet filter is its own",
    "the first process's namespaces": "its first process is its own, and not that of the host",
    "a network namespace in another": "its namespaces are its own",
    "the backend's sockets": "the sockets that it finds are those of its own services",
}
"""Ways out that are tried, and whose success inside says nothing; that nothing arrives holds for them too."""
