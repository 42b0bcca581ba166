"""The gateway: judges, dials, relays and records every outbound connection of every cell.

It is a process of its own, started by the keeper as `python -m irons_plugins.local.gateway`; nothing else of the
project imports it.
"""
