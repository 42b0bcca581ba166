"""What is printed when a session or a program ended: exit, denials, deadlines.

Modules here read logs and events and print one line on stderr.
Nothing here starts a process.
"""
