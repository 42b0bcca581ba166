"""What the server counts of itself, in the text that Prometheus reads.

`collect` measures, `tally` adds up the audit log, and `exposition` writes the text.
Labels have few values: no host, no sandbox and no key is one. The route is in `api`.
"""
