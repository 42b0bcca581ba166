"""The command line: words into a command's parameters, help, completion, and the host's own commands.

`main` runs one command; the prompt and xonsh parse, complete and explain through the same modules.
No request to a server is made here, and no handler is imported before its command runs.
"""
