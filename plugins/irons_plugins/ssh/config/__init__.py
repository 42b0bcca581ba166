"""`irons ssh-config`: entries for OpenSSH that know sandboxes by name.

`blocks` renders and edits the files; `handlers` is the command.
Nothing here opens a connection.
"""
