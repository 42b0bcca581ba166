"""The line being typed: tokens, grammar, completion, colours, keys and history.

Everything here works on text and on values that are already at hand.
No command runs here, and nothing waits for a server.
"""
