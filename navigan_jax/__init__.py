"""Interpretable directions in the weights of image generators: find them, look at them, use them.

Importing the package costs nothing: take what you need from its modules, and start a run with
`python -m navigan_jax.main --help`.
"""
