"""The public keys that open a sandbox, and the handler of `access`.

Modules here find, make and list keys.
A private key is named by path only and never read here, but for those that irons makes.
"""
