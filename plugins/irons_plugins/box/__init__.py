"""Sandboxes as Python objects (`irons.sandbox`, `irons.aio`), made of what the built-in plugins do.

It brings no command and is not registered as a plugin: `irons` names it and loads it when it is first touched.
Nothing here prints, and nothing starts the irons command line.
"""
