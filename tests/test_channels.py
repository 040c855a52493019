"""Images with alpha: comparisons see colour and alpha, but no colour of transparent pixels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import channels, testing
from navigan_jax.errors import InputError


def draw(count, seed=0):
    """Images with alpha beyond both ends of [-1, 1], as some networks make it."""
    images = np.random.RandomState(seed).uniform(-1, 1, (2, 5, 7, count))
    images[..., -1] *= 1.3
    return images.astype(np.float32)


@pytest.mark.parametrize("count", [1, 3])
def test_opaque_images_stay_as_they_are(count):
    images = draw(count)
    for function in (
        lambda x: channels.over(x, 0.5),
        channels.over_black_and_white,
        channels.premultiply,
        channels.unpremultiply,
    ):
        assert function(images) is images


@pytest.mark.parametrize("count", [2, 4])
def test_alpha_mixes_colour_and_background(count):
    """Alpha -1 shows the background, 1 the colour, 0 half of each; values beyond are clipped."""
    images = np.full((5, 1, count), 0.4, np.float32)
    images[:, 0, -1] = [-1.7, -1, 0, 1, 1.7]
    seen = channels.over(images, -0.2)
    assert seen.shape == (5, 1, count - 1)
    np.testing.assert_allclose(seen[:, 0, 0], [-0.2, -0.2, 0.1, 0.4, 0.4], rtol=1e-6)


@pytest.mark.parametrize("count", [2, 4])
def test_black_and_white_tell_what_is_seen_over_anything(count):
    """Every grey background gives a mix of the two; they determine only what is visible."""
    images = draw(count)
    both = channels.over_black_and_white(images)
    black, white = np.split(both, 2, axis=-1)
    grey = np.float32(0.3)
    share = (grey + 1) / 2
    np.testing.assert_allclose(
        channels.over(images, grey), black + share * (white - black), rtol=1e-5, atol=1e-6
    )
    hidden = images.copy()
    hidden[..., :-1][images[..., -1] <= -1] = 0.9
    assert not np.array_equal(hidden, images)
    np.testing.assert_array_equal(channels.over_black_and_white(hidden), both)
    for channel in (0, count - 1):  # a colour, the alpha
        changed = images.copy()
        changed[..., channel] *= 0.9
        assert not np.allclose(channels.over_black_and_white(changed), both)


@pytest.mark.parametrize("count", [2, 4])
def test_premultiplied_images_look_the_same_when_they_come_back(count):
    images = draw(count)
    again = channels.unpremultiply(channels.premultiply(images))
    for background in (-1.0, 0.3, 1.0):
        np.testing.assert_allclose(
            channels.over(again, background), channels.over(images, background), atol=1e-6
        )


def test_arrays_of_jax_give_the_same_and_keep_their_type():
    images = draw(4)
    for function in (channels.over_black_and_white, channels.premultiply, channels.unpremultiply):
        with testing.x64():
            found = jax.jit(function)(jnp.asarray(images, jnp.float64))
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, function(images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("count", [0, 5, 7])
def test_images_without_a_picture_are_refused(count):
    with pytest.raises(InputError, match=rf"net: .* 4 \(RGB and alpha\) channels; got {count}, w"):
        channels.require_known(count, "net")
