"""Offsets in a file: of recorded memory and of its views, and of nothing else."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tools.convert_weights.readers.places import Places

DATA = bytes(range(256)) * 8
SLICES = st.builds(slice, st.none(), st.none(), st.sampled_from([1, 2, -1, -2, 3]))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 900), st.tuples(SLICES, SLICES, SLICES), st.permutations(range(3)))
def test_every_view_is_found(start: int, slices: tuple[slice, ...], axes: list[int]) -> None:
    """Sliced, flipped and transposed views: offset and strides find their numbers in the file."""
    flat = np.frombuffer(DATA, np.uint16, 4 * 5 * 6, start)
    view = flat.reshape(4, 5, 6)[slices].transpose(axes)
    offset = Places(DATA).offset_of(view)
    assert offset is not None
    again = np.ndarray(view.shape, view.dtype, DATA, offset, view.strides)
    np.testing.assert_array_equal(again, view)


def test_copies_have_the_place_that_was_noted_and_no_other() -> None:
    """A piece read from the file lies where it was read; a copy of it that nobody noted does not,
    nor does a view that begins in one piece and ends beyond it."""
    places = Places(DATA)
    piece = DATA[100:200]
    array = np.frombuffer(piece, np.uint8)
    assert places.offset_of(array) is None and places.offset_of_noted(piece) is None
    places.note(piece, 100)
    assert places.offset_of(array[7:9]) == 107
    assert places.offset_of(array[::-1]) == 199
    assert places.offset_of_noted(piece) == 100
    own = array.copy()
    assert places.offset_of(own) is None
    places.note(own, 100)
    assert places.offset_of(own[3:]) == 103
    part = np.zeros(10, np.uint8)
    places.note(part[:5], 0)
    assert places.offset_of(part[4:6]) is None
    assert places.offset_of(part[:0]) is None
