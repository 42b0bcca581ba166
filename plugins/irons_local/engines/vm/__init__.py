"""The `vm` engine: sandboxes as QEMU virtual machines, whose user-mode network dials from the cell like any process in it.

`engine` is what the control plane calls; `boot` starts QEMU confined; `guest`, `qemu`, `qcow2` and `qmp` are pure text and data.
No images are made here, and nothing that a guest wrote is mounted, probed or trusted.
"""
