"""The way from this host to a server: resolving names, dialling addresses, the upstream proxy.

Everything here acts as the host, never as a cell, and only after a record was written.
No verdicts: who calls has checked the address.
"""
