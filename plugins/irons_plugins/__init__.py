"""The built-in plugins of irons: each package is one, registered through the same hooks as any other.

A package's `__init__` holds commands as data, its `handlers` the functions behind them, loaded when a command runs.
Only `local` may import the backend (`irons_local`); the others reach it through the API.
"""
