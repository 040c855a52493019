"""What a reconstructor sees of a pair of images."""

import jax
import numpy as np

from navigan_jax.discovery.reconstructor import init_reconstructor, make_reconstructor, predict


def test_colours_of_transparent_pixels_tell_nothing():
    """A transparent pixel's colour is invisible; other pixels' colours and alpha count."""
    network = make_reconstructor("lenet", directions=3)
    variables = jax.jit(lambda key: init_reconstructor(key, network, (32, 32, 4)))(
        jax.random.key(0)
    )
    images = np.random.RandomState(0).uniform(-1, 1, (2, 2, 32, 32, 4)).astype(np.float32)
    images[..., :16, :, -1] = -1
    run = jax.jit(lambda pair: predict(network, variables, *pair, train=False)[0][0])
    logits = run(images)

    def change(rows, channel):
        changed = images.copy()
        changed[..., rows, :, channel] *= 0.5
        return run(changed)

    above, below = slice(0, 16), slice(16, 32)
    np.testing.assert_array_equal(change(above, 0), logits)
    for rows, channel in ((below, 0), (above, -1), (below, -1)):
        assert not np.allclose(change(rows, channel), logits)
