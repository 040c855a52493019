"""Measures of what directions do to images."""
