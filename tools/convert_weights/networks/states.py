"""What the converters of plain state dicts share.

A converter takes arrays out of a `State` by name. Every array of the file is taken, or is known to
be of no use, or the file is refused; the converted arrays must have the shapes of the network.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from navigan_jax import params as params_lib
from navigan_jax.errors import InputError
from navigan_jax.generators.files import make_generator, write_generator
from tools.convert_weights.finding import Candidate, Form, choose, describe, find
from tools.convert_weights.networks.base import Foreign
from tools.convert_weights.readers.structure import Found

_DTYPES = ("float16", "bfloat16", "float32", "float64")
_LISTED = 8

# Axes that bring a tensor of PyTorch into our order; a dense weight of [out, in] is DENSE.
CONV, CONV_TRANSPOSE, DENSE = (2, 3, 1, 0), (2, 3, 0, 1), (1, 0)


class State:
    """The arrays of a network by their names in the file.

    name: of the file, in messages. expected: what the file should hold, in words.
    """

    def __init__(self, arrays: Mapping[str, np.ndarray], name: str, expected: str) -> None:
        self._arrays = dict(arrays)
        self._left = set(arrays)
        self._name, self._expected = name, expected

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def refusal(self, got: str) -> InputError:
        """Returns the error for a file that holds something else."""
        return InputError(
            f"{self._name}: expected {self._expected}; got {got}; see what the file is with: "
            "python -m tools.convert_weights inspect FILE"
        )

    def count(self, pattern: str) -> int:
        """Returns how many numbers 0, 1, ... the group of the pattern has; other numbers: refused.

        Raises: InputError.
        """
        matches = (re.fullmatch(pattern, key) for key in self._arrays)
        numbers = sorted({int(match[1]) for match in matches if match})
        if numbers != list(range(len(numbers))):
            raise self.refusal(f"layers numbered {', '.join(map(str, numbers[:_LISTED]))}")
        return len(numbers)

    def shape(self, key: str, rank: int) -> tuple[int, ...]:
        """Returns the shape of an array of that rank. Raises: InputError."""
        shape = self._get(key).shape
        if len(shape) != rank or 0 in shape:
            raise self.refusal(f"{key} of shape {list(shape)}, not of {rank} axes")
        return shape

    def take(self, key: str, axes: Sequence[int] | None = None, *, rank: int = 1) -> np.ndarray:
        """Returns a view of the array with its axes in the order `axes`; None: as they are.

        rank: number of axes, unless `axes` gives them.
        Raises: InputError if it is missing, of another rank, or holds no finite real numbers.
        """
        self.shape(key, rank if axes is None else len(axes))
        array = self._get(key)
        self._left.discard(key)
        if array.dtype.name not in _DTYPES:
            raise self.refusal(f"{key} of dtype {array.dtype}")
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite: refused
            bad = array.size - int(np.count_nonzero(np.isfinite(array.astype(np.float32))))
        if bad:
            raise self.refusal(f"{key} with {bad} of {array.size} numbers NaN or infinite")
        return array if axes is None else array.transpose(axes)

    def take_variance(self, key: str) -> np.ndarray:
        """Returns a vector of variances. Raises: InputError also for a negative one."""
        array = self.take(key)
        if array.min() < 0:
            raise self.refusal(f"{key} with negative variances")
        return array

    def drop(self, pattern: str) -> None:
        """Leaves out the arrays whose names match: the network does not need them."""
        self._left = {key for key in self._left if not re.fullmatch(pattern, key)}

    def check_all_taken(self) -> None:
        """Raises: InputError if arrays are left over: the file is another network."""
        if self._left:
            raise self.refusal(f"further arrays {listed(sorted(self._left))}")

    def _get(self, key: str) -> np.ndarray:
        if key not in self._arrays:
            raise self.refusal(f"no {key}, but {listed(list(self._arrays))}")
        return self._arrays[key]


class Reading(NamedTuple):
    """A network that was read: its sizes, and its arrays by our path.

    computed: arrays that are not in the file as they are.
    """

    config: Mapping[str, Any]
    arrays: Mapping[str, Found]
    computed: Mapping[str, np.ndarray] = {}


Reader = Callable[[State], Reading]


def convert(
    foreign: Foreign,
    network: str | None,
    *,
    architecture: str,
    expected: str,
    readers: Mapping[Form, Reader],
) -> tuple[dict[str, Any], params_lib.Params, dict[str, Any]]:
    """Returns (config, params, source) of a file, found in any wrapper.

    network: its name in the file; None: the average of training, or the only one that fits.
    expected: the network in words, for messages. readers: one for each naming scheme.

    Raises: InputError if the file holds no such network, or several that fit equally well.
    """
    by_name = {form.name: read for form, read in readers.items()}
    candidates = find(foreign.contents, list(readers), foreign.name)
    if not candidates:
        raise State({}, foreign.name, expected).refusal(describe(foreign.contents))

    def read(candidate: Candidate) -> Reading:
        state = State(candidate.arrays, foreign.name, expected)
        reading = by_name[candidate.form](state)
        state.check_all_taken()
        _check(architecture, reading, state)
        return reading

    chosen, reading = choose(candidates, read, network, foreign.name)
    networks = {chosen.label: reading.arrays}
    for candidate in candidates:
        if candidate is not chosen and (alike := _alike(candidate, read, reading)) is not None:
            networks[candidate.label] = alike.arrays
    source = {**foreign.origin, "map": foreign.map_of(chosen.label, networks)}
    return dict(reading.config), _params(reading), source


def convert_file(
    foreign: Foreign,
    out: str,
    network: str | None,
    *,
    architecture: str,
    expected: str,
    readers: Mapping[Form, Reader],
) -> str:
    """Writes the generator file of a file; returns its path. Arguments and errors: `convert`."""
    converted = convert(
        foreign, network, architecture=architecture, expected=expected, readers=readers
    )
    write_generator(out, architecture, *converted)
    return out


def form(name: str, anchor: str, names: re.Pattern[str], *, rank: int | None = None) -> Form:
    """Returns a naming scheme: all names match `names`, and one array matches `anchor`.

    rank: of the anchor's array; None: any.
    """
    return Form(
        name,
        anchor,
        knows=lambda key: names.fullmatch(key) is not None,
        is_anchor=lambda array: rank in (None, array.ndim),
    )


def _alike(
    candidate: Candidate, read: Callable[[Candidate], Reading], chosen: Reading
) -> Reading | None:
    try:
        found = read(candidate)
    except InputError:
        return None  # another kind of network, which the user did not ask for
    return found if found.config == chosen.config else None


def _params(reading: Reading) -> params_lib.Params:
    flat = {path: found.values() for path, found in reading.arrays.items()}
    return params_lib.unflatten({**flat, **reading.computed})


def _check(architecture: str, reading: Reading, state: State) -> None:
    """Refuses arrays whose shapes are not those of the network of these sizes."""
    try:
        generator = make_generator(architecture, reading.config)
    except InputError as error:
        raise state.refusal(str(error)) from error
    expected = generator.weights
    shapes = {path: found.view for path, found in reading.arrays.items()}
    got = params_lib.unflatten({**shapes, **reading.computed})
    if differences := params_lib.describe_differences(expected, got):
        raise state.refusal("other shapes:\n  " + "\n  ".join(differences) + "\n ")


def listed(keys: Sequence[str]) -> str:
    """Returns the first names in words, and how many more there are."""
    more = f" and {len(keys) - _LISTED} more" if len(keys) > _LISTED else ""
    return (", ".join(keys[:_LISTED]) or "nothing") + more
