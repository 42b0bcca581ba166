"""Where an image's files come from: mmdebstrap for Debian, skopeo for registries.

Modules here run those programs within bounds and explain their failures.
Nothing here unpacks an archive.
"""
