"""What a change of egress rules would do, from the log: shown while the change is being typed.

`gathering` knows which scopes are wanted, and `asking` asks the server for them, in the refresher's thread; `typed_change` reads the line,
`ground` is the log by host with the rules that cover each, and `effects` says in words what a change does to it. Only `asking` does I/O.
"""
