"""`irons exec`: programs in one or several sandboxes, their streams, exit codes and reports.

`handlers` is the command, `remote_script` what the sandbox's shell runs, `program` runs one.
No terminal is used here.
"""
