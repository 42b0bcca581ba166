"""The process in which plugins hear of events: started by the control plane, confined like the gateway.

Here are its rights and descriptors.
What it calls is `irons.hook_runner`, and what it is fed `irons_local.control.hook_feed`.
"""
