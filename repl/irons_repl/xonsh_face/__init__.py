"""irons inside xonsh, one module per concern; `irons_repl.xontrib` puts them together."""
