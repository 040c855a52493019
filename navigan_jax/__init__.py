"""Interpretable directions in the weights of image generators: find them, look at them, use them.

Importing the package loads nothing else: import the modules that you need. For runs see
`python -m navigan_jax.main --help`.
"""
