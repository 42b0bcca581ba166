"""The audit log: records of the gateway's workers taken in once, kept, folded, paged and retired.

Everything here writes or reads events; what an event means was decided by the gateway.
No rules, no engines, no HTTP.
"""
