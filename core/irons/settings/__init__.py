"""Settings: flags, environment, profile and `config.toml`, and where files belong.

`settings` merges them, `config_file` edits the file in place, `xdg` finds the directories.
No module here knows a command or a server.
"""
