"""Functions that run in a cell's user namespaces, as the owner of a sandbox's files (`linux.userns_main`).

Unpacking, packing, cloning, counting and preparing trees that may be hostile.
No asyncio, no network, no path outside of the descriptors that were handed in.
"""
