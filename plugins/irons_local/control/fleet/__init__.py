"""The members of the fleet, as the control plane has them: who may connect, what is asked of them, and copies of their logs.

`fleet` has the parts together, `listener` lets members in, `members` asks them and hears them, `copies` keeps what comes of their logs.
Nothing here judges a connection, and what a member reports of sandboxes that were never on it is not believed.
"""
