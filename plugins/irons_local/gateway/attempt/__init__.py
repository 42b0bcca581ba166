"""One connection that a cell tried: does what its conversation wants, from accept to the closing record.

`attempt` carries out and answers; `sides` has both sockets, `answers` the rules, `account` the log.
No order and no protocols here: `conversation` has both.
"""
