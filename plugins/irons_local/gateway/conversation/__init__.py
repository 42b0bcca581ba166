"""A connection's whole life without I/O: events go in, and what is to be done comes out.

`life` keeps the order of record, judgement and dial; one module per protocol says what may go on of it.
No sockets, no event loop, no policy: `attempt` drives it, and answers what it asks.
"""
