"""Images that are the disk of a virtual machine: a stopped machine's layers, named by an image.

`saving` makes one, and `exporting` writes one to a file, by `whole` in a process without rights. Nothing of a guest's file system is read, so that keys which someone put into its files stay in it.
Machines start from it as from a snapshot (`images.origins`).
"""
