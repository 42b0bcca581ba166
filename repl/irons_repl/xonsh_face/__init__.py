"""irons inside xonsh, one module per concern; `irons_repl.xontrib` loads them.

Aliases, completion, the prompt field and variables live here.
Parsing and running are those of the prompt; nothing here talks to a server by itself.
"""
