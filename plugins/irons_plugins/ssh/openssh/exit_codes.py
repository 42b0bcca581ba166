"""The exit codes of `ssh`, `exec` and what is built on them, where they are not those of the remote program."""

from __future__ import annotations

OUT_OF_TIME = 124
"""The exit code of `exec` where the program's time ran out, as of timeout(1)."""

OPENSSH_FAILED = 255
"""OpenSSH's exit code where it failed itself, unless it is the remote program's."""
