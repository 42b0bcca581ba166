"""Settings of the local backend that several processes read: `[local]` of the settings file, and `server.json`.

Each module parses and validates one of them; nothing here acts on it.
The keeper imports `worker_count`: that module has no third-party import.
"""
