"""The built-in plugin `local`: commands that start, stop, inspect and remove the local backend; it answers for the URL `local`.

The backend itself is `irons_local`. Importing this package imports nothing else: the plugin, with what it needs of
others, is `plugin.py`. Modules that are three lines long are the old names of modules that moved, kept for one release.
"""
