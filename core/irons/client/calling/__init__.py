"""The calls of the API by subject: egress, snapshots, questions, and what all of them are made by.

Each is a class that `irons.client.api.Api` inherits, with a method for a call; answers are read by `irons.client.models`.
Nothing here opens a connection: `irons.client.transport` sends and retries.
"""
