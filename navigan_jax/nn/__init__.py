"""Layers, filters and pixel windows that several networks share."""
