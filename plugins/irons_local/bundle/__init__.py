"""What a sandbox is started from, as data and text.

The OCI bundle, the system call filter, boot steps, the SSH server's configuration, and the engine's record of a machine.
Modules here describe; nothing starts a process or mounts a file system.
"""
