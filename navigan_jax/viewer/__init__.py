"""A page on the user's own machine to look at directions, combine, name and keep them."""
