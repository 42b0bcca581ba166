"""A cell as the gateway sees it: its listeners, its names, its caps, and what its kernel reports.

Connections and packets come in here and are handed to `attempt`; DNS questions are answered here.
No verdict is made here, and nothing is dialled.
"""
