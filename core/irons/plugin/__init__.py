"""Plugins as the host meets them: found, loaded, checked, and blamed where they fail.

`hook_data` is what hooks are given. `irons.hook_runner` runs those that hear of events, in a process of their own.
What a plugin implements is in `irons.hookspecs`, and who calls it in `irons.host`; nothing here knows a command.
"""
