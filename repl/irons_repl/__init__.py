"""The interactive faces of irons: the `irons>` prompt and the xontrib."""
