"""What one cell may take of a worker: time, descriptors, memory, and its turn.

The event loop's selector and the bounds that keep cells apart live here.
Nothing here knows a protocol, a rule or a name.
"""
