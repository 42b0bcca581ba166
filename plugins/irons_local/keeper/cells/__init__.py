"""The cells that the keeper holds, its event loop, and the requests that clients send it.

Children make the cells; `standby` refuses connections while a worker is away.
Standard library only; nothing here blocks.
"""
