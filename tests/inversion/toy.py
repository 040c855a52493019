"""A linear generator with a noise map, whose gradients are written down; and a small StyleGAN2."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.generators.base import Generator
from navigan_jax.generators.files import make_generator
from navigan_jax.generators.latent_space import NormalSpace
from navigan_jax.inversion import codes, objective
from navigan_jax.perceptual import METRICS

SIDE, ROWS, SIZE = 8, 2, 3


class Linear(nn.Module):
    """w = z B, in every row; image = w_plus A + s · noise."""

    noise: str = "constant"

    @nn.compact
    def __call__(self, z):
        return self.run(z, 0, 2)

    @nn.compact
    def run(self, carry, start, stop):
        into = self.param("into", nn.initializers.normal(1), (SIZE, SIZE))
        out = self.param("out", nn.initializers.normal(1), (ROWS * SIZE, SIDE * SIDE))
        maps = self.param("noise", nn.initializers.normal(1), (SIDE, SIDE))
        strength = self.param("noise_strength", nn.initializers.constant(0.5), ())
        if start == 0:
            carry = jnp.repeat((carry @ into)[:, None], ROWS, axis=1)
        if stop < 2:
            return carry
        images = (carry.reshape(len(carry), -1) @ out).reshape(-1, SIDE, SIDE, 1)
        return images + strength * maps[None, ..., None]


LINEAR = Generator(
    architecture="linear",
    network=Linear(),
    space=NormalSpace(SIZE),
    resolution=SIDE,
    image_channels=1,
    mapping_stages=1,
    stages=2,
    layers=(),
)

STYLES_CONFIG = {
    **testing.TINY_CONFIGS["stylegan2"],
    "label_dim": 0,
    "label_width": 0,
    "mapping_widths": (9, 8),
    "mapping_rate": 1.0,
    "channels": (8, 7, 6),
}
STYLES = make_generator("stylegan2", STYLES_CONFIG)


def styles_params(seed=0):
    """Weights of STYLES with a noise of some strength."""
    return params_lib.to_device(testing.draw_params(STYLES, seed))


def problem_of(generator, params, image, *, space="w_plus", usual=0.0, metric="l2"):
    """The problem of one photograph."""
    spread = codes.measure_spread(generator, params, space, jax.random.key(123))
    return objective.make_problem(
        generator,
        params,
        METRICS[metric](),
        spread,
        jnp.asarray(image),
        space=space,
        rest=jnp.zeros((1, 0)),
        usual=usual,
    )


def own_image(generator, params, seed=5):
    """An image that the generator makes from a sample."""
    z = generator.sample_latents(jax.random.key(seed), 1)
    return np.asarray(images_of_z(params, z, generator=generator))


@functools.partial(jax.jit, static_argnames="generator")
def images_of_z(params, z, *, generator):
    """The images of z, or of w_plus."""
    return generator.synthesize(params, generator.map_latent(params, z))
