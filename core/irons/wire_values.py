"""What the v0 API's client and its server both know of values: one place for each."""

from __future__ import annotations

SANDBOX_ID = "sb_[0-9a-f]{16}"
"""A sandbox's id, as a regular expression; in the local backend it is the name of the sandbox's cell too."""

SANDBOX_NAME = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
"""What sandboxes and snapshots of irons' own server are called, as a regular expression: a DNS label (RFC 1123) in lower case."""

LONGEST_NOTE = 200
"""Characters that a sandbox's note may have."""

KEY_ROLES = ("admin", "user", "auditor")
"""What an API key may do at irons' own server: all, with the sandboxes that it created, or read."""

REQUEST_HEADER = "X-Irons-Request"
"""The field of a request with the id of the command that sends it; the server's logs name it."""

FACE_HEADER = "X-Irons-Face"
"""The field of a request in which a client claims what it is (cli, prompt, library, …); the server's change log has it."""
