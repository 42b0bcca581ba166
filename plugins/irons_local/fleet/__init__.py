"""What a server and its members share: certificates, the token of a join, and the messages of their link.

`certificates` needs the package `cryptography` (extra `irons[fleet]`) and is imported only where a fleet is used.
Nothing here knows what a message causes: that is decided in `control.fleet` on the server and in `member` on the other side.
"""
