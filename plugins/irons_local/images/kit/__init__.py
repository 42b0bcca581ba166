"""The kit: an SSH server and a few programs with their own loader and libraries, taken from a base image.

`collect` picks the files, `elf` reads what they need, `store` keeps one kit per base image.
Nothing here knows a sandbox.
"""
