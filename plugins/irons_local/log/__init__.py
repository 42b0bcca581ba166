"""Log lines of the backend's processes: their format, what they belong to, how many there may be, and reading them.

A line names the request, the sandbox and the connection that it belongs to.
Not here: the audit log of connections (`gateway.record`, `control.audit`). Below `ipc`: standard library and `irons.text` only.
"""
