"""The SQLite database: its migrations, and tables as rows (sandboxes, rules, keys, terms).

SQL of everything but events lives here; `database` opens the file and owns the one writing thread.
No HTTP, no engine, no task.
"""
