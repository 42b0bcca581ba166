"""Old name of `irons_local.gateway`, kept for one release: a keeper that runs since before the move starts it."""
