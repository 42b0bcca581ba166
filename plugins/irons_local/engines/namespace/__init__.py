"""The `namespace` engine: sandboxes as crun containers in the namespaces of a cell.

`engine` is what the control plane calls; `boot`, `forkserver` and `amend` are programs that run next to a sandbox.
No images are made here, and nothing that a sandbox wrote is trusted.
"""
