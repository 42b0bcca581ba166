"""The keeper: holds the cells' sockets and keeps the gateway's workers and the control plane running.

Single-threaded and small: standard library only, no asyncio, no third-party code at any time.
It knows neither rules, nor sandboxes, nor the database.
"""
