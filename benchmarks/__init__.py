"""Scripts that measure both sides of a claim in one run and print `ratio NAME NUMBER`."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # as in `navigan_jax.main`; before NumPy
