"""How the keeper starts, watches, adopts, restarts and ends the processes of the backend.

`workers` assigns cells to the gateway's workers; `supervisor` watches one process; `forkserver` forks workers.
Standard library only; no process is imported here, each is started by name.
"""
