"""Settings: flags, environment, profile and `config.toml`, and where files belong.

`keys` lists every key, `checking` says what a value may be, `settings` merges them, `config_file` edits the file in place,
`xdg` finds the directories, `scope` says which sandboxes are meant.
No module here knows a command or a server.
"""
