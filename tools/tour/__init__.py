"""A tour: one connection of a real sandbox, followed through the code by file and line.

`make tour` runs it. `stops` lists the functions that the tour passes, `tracing` records the calls of them in the
gateway's worker and in the control plane, and `keeper` starts both with that tracing. Nothing of irons is changed
for it, and no process of irons imports it.
"""
