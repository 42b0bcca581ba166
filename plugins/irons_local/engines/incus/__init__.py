"""The `incus` engine: sandboxes as containers of an Incus on the same machine, each behind the veth of a cell.

What Incus does for it goes by its REST API, over its unix socket. Packets of a sandbox arrive in its cell on the veth whose other end
is the instance's only network device.
"""
