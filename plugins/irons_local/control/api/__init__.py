"""The routes of the API, and the application that serves them.

A handler reads a request, calls one part of the control plane and shapes the answer; `plane` is what it can reach.
No SQL and no decisions about sandboxes, rules or events here.
"""
