"""What a face reads from and writes to: streams, progress, and data rendered as text.

`output` renders rows, `tables` is the only module that imports rich, `progress` narrates on stderr.
No module here knows a server or decides what to show.
"""
