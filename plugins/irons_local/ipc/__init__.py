"""Messages between the backend's processes: length-prefixed JSON over unix sockets, with descriptors.

`link` blocks, `aio` is for asyncio, `locate` finds the keeper's socket, `messages` has those of each link.
All but `aio` use the standard library only and never asyncio: the keeper imports them. What a message causes is decided elsewhere.
"""
