"""Messages between the backend's processes: length-prefixed JSON over unix sockets, with descriptors.

`link` blocks, `aio` is for asyncio, `locate` finds the keeper's socket.
`link` and `locate` use the standard library only and never asyncio: the keeper imports them. No message is interpreted here.
"""
