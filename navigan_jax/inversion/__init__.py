"""Inversion: a photograph is found in a generator, so that directions can edit it."""
