"""Running a line: commands in this process, other programs next to it, and the session that they share.

The terminal is handed over and taken back here.
Nothing here draws the prompt.
"""
