"""Links to the keeper and to the gateway's workers, as the control plane uses them.

Each module turns requests into messages and answers into data, and reconnects.
No decision is made here, and no module of the other process is imported.
"""
