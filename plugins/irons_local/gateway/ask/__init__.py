"""Mode `ask`: which connections wait for a person's answer, for how long, and what the answer does to them.

`asking` has the questions of one cell, without I/O; `news` tells the control plane of them. One connection's part in a question
is `irons_local.gateway.attempt.asked`.
"""
