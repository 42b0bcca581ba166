"""The gateway: judges, dials, relays and records every outbound connection of every cell.

It runs as several workers, each a process with its share of the cells, forked from one warm process (`forkserver`) when
the keeper asks for it. `python -m irons_local.gateway` is one worker started by itself. Nothing else of the project imports it.
"""
