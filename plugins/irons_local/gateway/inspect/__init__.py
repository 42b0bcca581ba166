"""What a client says in the clear: the protocol it speaks and every name it shows.

`sniff` and `inspector` are pure; `opening` reads a connection's first bytes for them; `late` is who judges what comes later.
No dialling, no relaying.
"""
