"""The write-ahead audit log of one worker: the journal, folded refusals, counters, and the notice to the control plane.

Records are written here before anything happens.
Nothing here decides, dials or knows SQL.
"""
