"""`audit watch`: outbound connections as they happen.

The model is pure, the feed reads, the view draws, the app handles keys, the guard ignores keys meant for another row.
Rules change through the client only.
"""
