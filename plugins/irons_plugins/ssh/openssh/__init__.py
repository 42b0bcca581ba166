"""Running OpenSSH: its command lines, its processes, the person's own configuration, and how it ended.

Options are pinned here so that no configuration opens a way round the gateway.
Nothing here asks the API.
"""
