"""The command line's side of the backend: find, start, upgrade, ask and end its processes.

Commands and transports import this; the processes themselves do not.
No rules, no sandboxes: those are asked for through the API.
"""
