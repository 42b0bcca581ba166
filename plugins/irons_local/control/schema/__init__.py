"""What requests and answers look like: JSON schemas, value grammars, times on the wire, and errors.

Modules here validate and convert values, and import nothing of the other parts.
No state, no database, no process.
"""
