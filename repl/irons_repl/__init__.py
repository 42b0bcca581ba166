"""The interactive faces of irons: the `irons>` prompt, the live view and the xontrib.

`prompt` reads lines, `shell` and `script` run them; the parts are folders (`line`, `run`, `status`, `watch`, `xonsh_face`).
No plugin is imported here: commands come from the host.
"""
