"""Where a sandbox's SSH is, and what opens it: address, host keys, private key, kept connection.

Modules here prepare a connection from what the server sent, which is hostile until checked.
No program is run in a sandbox here.
"""
