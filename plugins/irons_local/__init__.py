"""The local backend: the v0 API answered on this machine, by real sandboxes and a gateway that judges their egress.

One folder per process (`keeper`, `gateway`, `control`), and below them what they share. Importing this package imports
nothing else: its processes start with rights that only our own code may see. Of irons it uses version, text and files.
"""
