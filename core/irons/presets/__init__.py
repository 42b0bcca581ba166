"""Known sets of hosts, by the name of what needs them. None is a rule until a person takes it.

`known_sets` is the data, `collecting` adds those of plugins, and `offers` finds the set that a question belongs to.
Nothing here asks a server, and nothing is looked up.
"""
