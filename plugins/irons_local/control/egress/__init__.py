"""Changes to rules and modes: validated, stored, active at the gateway, and only then answered.

`rules_input` parses what a request asks for; `rules_and_modes` carries it out, on the rows of `scope_rows`.
No HTTP here: the routes are in `api`.
"""
