"""`audit watch`: outbound connections as they happen.

`model` counts events, `standing` knows the rules, `listing` orders, `state` takes keys, `view` and `detail` draw: all of them
without I/O. `feed` reads the log and the rules, `changing` makes and unmakes rules by the client, `app` has the terminal, and
`guard` gives it back if the program is killed.
"""
