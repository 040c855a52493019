"""The viewer: a local server and its page, to explore, combine, name and export directions."""
