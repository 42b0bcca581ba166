"""What of the repository's checks and attacks is not tried on a virtual machine: one list, each with its reason.

The checks of overlays (`tests/local/engine_layers.py`) are not in it: the layers of a machine are disks, which `test_vm` and
`tests/local/test_vm_copies.py` try. Nor are the gateway's suites (`tests/local/gateway`), which have a cell and no engine: what dials
there dials as QEMU does.
"""

from __future__ import annotations

from collections.abc import Mapping

CHECKS: Mapping[str, str] = {
    "what_was_enabled_starts": "systemd starts services of a guest, and the host sees nothing of how they end",
    "processes_are_limited": "the number of processes is the guest's own affair",
}
"""Of the conformance suite (`irons_local.engines.conformance.CHECKS`)."""

ATTACKS: Mapping[str, str] = {
    "vsock_is_refused": "its kernel may have the family; QEMU gives it no such device",
    "the_kernel_is_out_of_reach": "its kernel is its own, and its root may do anything with it",
    "limits_are_seen_and_not_changed": "its hardware is its limits; `test_vm` fills memory and disk",
    "nested_namespaces_are_harmless": "its namespaces are those of its own kernel",
    "packet_filters_are_out_of_reach": "its packet filter is its own; what it sends meets the cell behind QEMU",
    "its_ids_are_its_own": "its ids are its own; `test_vm` looks at those of QEMU",
    "what_users_share_is_not_used_up": "inotify instances and terminals are those of its own kernel",
    "memory_is_limited_where_it_can_be": "a machine has 256 MiB at least; `test_vm` fills its memory",
    "the_disk_is_limited_where_it_can_be": "its disk has a size on every host; `test_vm` fills it",
    "carried_authorities_come_and_go": "the check reaches into the namespace engine",
    "what_froze_itself_is_destroyed": "it freezes nothing but its own processes, and QEMU is ended from outside",
}
"""Of the attacks on the host (`tests.local.engine_attacks.ATTACKS`)."""

ATTEMPTS: Mapping[str, str] = {
    "another route": "its routes are its own, and without them the session ends",
    "another link": "its devices are its own",
    "another address": "its addresses are its own",
}
"""Of the ways out (`tests.e2e.attempts`)."""

SUCCEEDS_INSIDE: Mapping[str, str] = {
    "raw sockets": "its root may make them; what they send ends at QEMU (the crafted frames of `test_vm`)",
    "packet sockets": "the same",
    "vsock": "its kernel may have the family; QEMU gives it no such device",
    "the packet filter": "its packet filter is its own",
    "the first process's namespaces": "its first process is its own, and not that of the host",
    "a network namespace in another": "its namespaces are its own",
    "the backend's sockets": "the sockets that it finds are those of its own services",
}
"""Ways out that are tried, and whose success inside says nothing; that nothing arrives holds for them too."""

NOT_LOGGED: Mapping[str, str] = {
    "224.0.0.251": "QEMU's user-mode network drops multicast before there is a socket",
}
"""Hosts that are tried and that the log does not name, with the reason."""
