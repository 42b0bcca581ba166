"""The local backend: the v0 API answered on this machine, by real sandboxes behind an airtight gateway.

Importing this package imports nothing else: its processes start with rights that only our own code may see, and the
plugin, with what it needs of others, is `plugin.py`.
"""
