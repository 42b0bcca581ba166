"""The exit codes of `ssh`, `exec` and what is built on them, where they are not those of the remote program."""

from __future__ import annotations

OUT_OF_TIME = 124
"""The exit code of `exec` where the program's time ran out, as of timeout(1)."""

OPENSSH_FAILED = 255
"""OpenSSH's exit code where it failed itself, unless it is the remote program's."""

CONNECTION_LOST = 256
"""In place of an exit code: the connection ended before the program's session did, so the end of its output may be missing."""

SESSION_KILLED = 257
"""In place of an exit code: a session on a kept connection ended without one, since a signal killed the sandbox's shell (RFC 4254, 6.10)."""
