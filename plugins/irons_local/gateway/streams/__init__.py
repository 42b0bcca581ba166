"""Non-blocking TCP sockets: one read and written by one task, and bytes spliced between two.

Turns and budgets are respected here.
Nothing here looks at the bytes.
"""
