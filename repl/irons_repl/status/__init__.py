"""What the prompt shows and completes from the server: fetched by one thread, read by the toolbar and completion.

`refresher` asks, the others read what it left.
Nothing here waits for an answer while a person types.
"""
