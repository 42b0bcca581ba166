"""The built-in plugin `fleet`: commands for sandboxes on more than one machine.

The commands are data in `*_commands`, and what they do is in `*_handlers`.
What a cluster is asked, and how, is the engine's business (`irons_local.engines.incus`).
"""
