"""What connections share: `cell` has what those of one cell do, `context` what all do.

`cell` keeps a cell's policy, names and caps; `synthetic_names` takes its made-up addresses from `pools`.
Nothing is accepted, judged or dialled here.
"""
