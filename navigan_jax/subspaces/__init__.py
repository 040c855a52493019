"""Subspaces of the weights of some layers, in which directions are searched for."""
