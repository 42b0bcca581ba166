"""Images: root file systems that sandboxes start from, and the layers they share.

`catalog` builds, imports, saves, exports and removes them; `inside` holds what runs as the owner of their files.
No running sandbox is touched here.
"""
