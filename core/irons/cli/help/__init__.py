"""Help: pages made from the command tree, the sections of the overview, and the texts of the topics.

`pages` lays out text for one width and one face; `sections` and `topics` are data.
No handler is imported and no setting is read to explain a command.
"""
