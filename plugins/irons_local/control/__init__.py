"""The control plane: the process that answers the API, keeps the database and drives engines.

`server` starts it and wires its parts; each part is a folder. It reaches the keeper and the gateway by links only.
No module of `keeper` or `gateway` may be imported here.
"""
