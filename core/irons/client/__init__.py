"""The client of the v0 API: from an API URL to typed answers.

Backends, transports, models and the caches of names that completion reads live here.
Nothing here prints, parses a command line or knows a plugin; an HTTP library is loaded at run time only.
"""
