"""What makes machines: the protocol that every engine follows, what they share on disk and at a start, and the suite that tests one.

`namespace` is the built-in engine.
An engine knows neither rules, nor names on the wire, nor the audit log.
"""
