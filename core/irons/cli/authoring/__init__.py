"""For authors of plugins: `irons plugins new` and `irons plugins check`.

`plugin_package` writes a package with a working plugin and its tests; `plugin_check` runs what a release should pass.
Nothing here is imported by any other command, and no request to a server is made.
"""
