"""What makes machines: the protocol that every engine follows, and the suite that tests one.

`namespace` is the built-in engine, `bundle` what its sandboxes are started from.
An engine knows neither rules, nor names on the wire, nor the audit log.
"""
