"""Following what changes at the server: the audit log page by page, and a sandbox's state.

Modules here ask the client again and again, and know from where on.
Nothing here prints, or keeps anything on disk.
"""
