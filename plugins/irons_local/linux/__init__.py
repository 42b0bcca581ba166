"""System calls and kernel interfaces that the standard library lacks: namespaces, ids, control groups, processes, disks.

Each module wraps one interface and names its manual page.
No knowledge of sandboxes, rules or images; no import above `ipc` and `cell`.
"""
