"""`irons audit export`: both logs as JSON lines, CSV or OTLP, resumable by a cursor.

Sources read a log page after page and know a position in it; files, stdout and collectors take records. A position and what was
written up to it change together, or not at all.
"""
