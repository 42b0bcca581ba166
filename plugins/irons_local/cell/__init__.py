"""A cell: the network of one sandbox, and the sockets through which it meets the gateway.

Addresses, ports, the packet filter and the sockets are made here, by a child of the keeper.
Standard library only: the keeper imports this package. No rules, no sandboxes.
"""
