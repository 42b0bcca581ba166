"""The life of a sandbox: its states, deadlines, holds, keys, variables and SSH port, and the engines that run it.

Decisions about one sandbox live here, with the tasks that carry them out.
No HTTP and no routes; SQL only through `store`.
"""
