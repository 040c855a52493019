"""BigGANs: which draws the truncation gives, and which norms a setting of the file concerns."""

import jax
import numpy as np
import pytest

from navigan_jax import testing
from navigan_jax.errors import InputError
from navigan_jax.generators.files import make_generator

KEY = jax.random.key(1)
SIZES = dict(testing.TINY_CONFIGS["biggan"])


def test_truncation_is_the_threshold_of_a_truncated_normal() -> None:
    """As in NaviGAN's program, and no rescaling; 1 means that nothing is cut off."""
    z_dim, bound = SIZES["z_dim"], 0.4
    generator = make_generator("biggan", {**SIZES, "truncation": bound})
    z = np.asarray(generator.sample_latents(KEY, 4000))[:, :z_dim]
    assert np.abs(z).max() <= bound
    # The variance of a normal law within ±0.4 is 0.05220 (its closed form); of 0.4 z, 0.16.
    assert z.var() == pytest.approx(0.05220, rel=0.02)
    free = make_generator("biggan", SIZES).sample_latents(KEY, 4000)
    np.testing.assert_array_equal(
        make_generator("biggan", {**SIZES, "truncation": 1.0}).sample_latents(KEY, 4000), free
    )
    assert np.asarray(free)[:, :z_dim].var() == pytest.approx(1, rel=0.03)


@pytest.mark.parametrize("truncation", [0.0, -1.0])
def test_truncation_without_a_law_is_refused(truncation: float) -> None:
    with pytest.raises(InputError, match=r"truncation: expected a number above 0.*; got "):
        make_generator("biggan", {**SIZES, "truncation": truncation})


def test_epsilon_of_the_settings_is_of_the_blocks_alone() -> None:
    """The original program gives its BN_eps to the norms of the blocks, and not to the last."""
    generator = make_generator("biggan", SIZES)
    other = make_generator("biggan", {**SIZES, "epsilon": 0.3})
    params = testing.draw_params(generator, 0)
    z, last = generator.sample_latents(KEY, 2), generator.stages - 1

    def run(network: object, carry: object, start: int, stop: int) -> object:
        return network.apply({"params": params}, carry, start, stop, method="run")

    features = run(generator.network, z, 0, last)
    same = run(other.network, features, last, last + 1)
    np.testing.assert_array_equal(same, run(generator.network, features, last, last + 1))
    assert np.abs(run(other.network, z, 0, last)[0] - features[0]).max() > 1e-3
