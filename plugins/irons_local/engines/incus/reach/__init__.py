"""How Incus is reached: by the unix socket of this machine, or by HTTPS as the client of a cluster that this machine has joined.

`ways` connects, `events` follows what Incus reports, `joined` keeps what a cluster is reached by, and `token` reads what its
administrator hands out.
"""
