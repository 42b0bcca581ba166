"""The gateway's worker as the tour runs it: the real one, with its calls recorded."""
