"""What is stored beside a normalised weight, on small arrays in memory."""

import numpy as np
import pytest

from navigan_jax.editing import normalised
from navigan_jax.generators.source_map import Absorber, Spectral

WEIGHTS = np.float32([[2.0, 0.0], [0.0, 1.0]])  # [in, out]; singular values 2 and 1
NAMES = ("fc.weight", "fc.u0")


def memory(*vectors: list[float]) -> bytearray:
    return bytearray(np.float32(vectors).tobytes())


def spectral(*, has_right: bool = False, absorbers: tuple[Absorber, ...] = ()) -> Spectral:
    v = (8, "<f4", 2) if has_right else None
    return Spectral(NAMES, (0, "<f4", 2), v, 1e-6, absorbers)


def test_zero_weights_have_no_divisor() -> None:
    """Any u gives 0, so nothing is written, and the reason names the vector v."""
    place, stored = spectral(has_right=True), memory([0.6, 0.8], [1.0, 0.0])
    zero = np.zeros_like(WEIGHTS)
    assert normalised.store_beside(zero, 1.0, place, {}, stored) == ()
    assert stored == memory([0.6, 0.8], [1.0, 0.0])
    assert "the stored vector v is 0" in normalised.describe(zero, 1.0, place)


@pytest.mark.parametrize(
    ("sigma", "reason"), [(3.0, "largest .* 0.6666"), (0.5, "smallest .* 2, ")]
)
def test_reason_tells_the_side(sigma: float, reason: str) -> None:
    place, stored = spectral(), memory([1.0, 0.0])
    assert normalised.store_beside(WEIGHTS, sigma, place, {}, stored) == ()
    with pytest.raises(ValueError, match=reason):
        raise ValueError(normalised.describe(WEIGHTS, sigma, place))


def test_largest_share_is_where_the_largest_singular_value_is_sigma() -> None:
    """2 - 2 t = 1.5 at t = 1/4, a share that the bisection meets from below."""
    share = normalised.largest_share(WEIGHTS, -WEIGHTS, 1.5, spectral(), memory([1.0, 0.0]))
    assert 0.249 <= share <= 0.25


def test_absorbers_take_the_factor_or_nothing_changes() -> None:
    """σ was 3 and is 2: the weight in use is 1.5 times what is wanted."""
    absorbers = (Absorber("bias", "fc.bias", 1), Absorber("var", "bn.var", 2, 0.5))
    place, stored = spectral(absorbers=absorbers), memory([1.0, 0.0])
    arrays = {"bias": np.float32([2.0, -4.0]), "var": np.float32([1.5, 0.0])}
    only = {"bias": arrays["bias"].copy()}
    assert normalised.store_beside(WEIGHTS, 3.0, place, only, stored) == ()
    np.testing.assert_array_equal(only["bias"], arrays["bias"])
    names = normalised.store_beside(WEIGHTS, 3.0, place, arrays, stored)
    assert names == ("fc.weight", "fc.bias", "bn.var")
    np.testing.assert_allclose(arrays["bias"], [3.0, -6.0])
    np.testing.assert_allclose(arrays["var"], [2.25 * 2.0 - 0.5, 2.25 * 0.5 - 0.5])
    # A factor below 1 would make the second variance negative.
    before = {path: values.copy() for path, values in arrays.items()}
    before["var"][1] = arrays["var"][1] = 0.0
    assert normalised.store_beside(WEIGHTS, 0.5, place, arrays, stored) == ()
    for path, values in before.items():
        np.testing.assert_array_equal(arrays[path], values)
