"""The way in of a cell: its listeners, its DNS questions, and what its kernel reports.

Connections and packets come in here and are handed to `attempt`; DNS questions are answered here.
No verdict is made here, and nothing is dialled.
"""
