"""The agent of a member of a fleet: it is to its keeper and gateway what the control plane is elsewhere, and asks a server what to do.

It dials the server and listens on nothing. Without the server it keeps the policies that it has.
It decides nothing about rules, and knows no engine: machines, names and the one log are the server's.
"""
