"""What follows the dial: bytes moved both ways, by the protocol that was recognised.

Each mode relays one kind of connection and asks `late` about names that show up on the way.
No dialling of its own, no journal.
"""
