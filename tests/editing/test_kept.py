"""The cache stays within its bound and drops the least recently used values first."""

import numpy as np

from navigan_jax.editing.kept import Kept, nbytes


def test_kept_values_are_the_last_used_ones_within_the_bound() -> None:
    kept: Kept[bytes] = Kept(10, len)
    for key in "ab":
        kept.keep(key, key.encode() * 4)
    assert kept.find("a") == b"aaaa"
    kept.keep("c", b"cccc")  # drops b, the least recently used
    assert kept.find("b") is None and kept.find("a") == b"aaaa" and kept.find("c") == b"cccc"
    kept.keep("d", bytes(11))  # larger than the bound: nothing is dropped
    assert kept.find("d") is None and kept.find("a") == b"aaaa"
    kept.keep("a", b"other")  # equal keys mean equal values, so the first one stays
    assert kept.find("a") == b"aaaa"


def test_size_of_a_tree_is_that_of_its_arrays() -> None:
    assert nbytes({"a": np.zeros((2, 3), np.float32), "b": (np.zeros(5, np.int8), None)}) == 29
