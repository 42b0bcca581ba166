"""The language of egress rules: from a pattern or an address to a verdict, without I/O.

Patterns, rules, names, addresses, the floor and the decision live here; the gateway, the control plane and the commands
share them. No socket, no asyncio, no database, no file, and no import of another package of irons.
"""
