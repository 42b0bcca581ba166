"""Verdicts on what an attempt says, and how a refusal looks to whoever was refused.

The policy is applied here to names, addresses and authorities.
Nothing here relays bytes of a connection that was allowed.
"""
