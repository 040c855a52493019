"""The nearest scene to an image: all factors free, fitted by gradients of the renderer."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.cars import scene
from navigan_jax.array_types import Array, Float, Images

STEPS = 60
_RATE = 0.06
_INSIDE = 0.02  # how near the ends of a range the start may be, as a share of it
# The search may leave the ranges by this share of them: edited cars do.
_BEYOND = 0.5

# One row each, as they stand beside rows of images.
_LOW = np.array([[factor.low for factor in scene.FACTORS]], np.float32)
_SPAN = np.array([[factor.high - factor.low for factor in scene.FACTORS]], np.float32)
_CIRCULAR = np.array([[factor.is_circular for factor in scene.FACTORS]])
# Brightness and saturation outside [0, 1] are no colours.
_BOUNDED = np.array(
    [[any(w in factor.name for w in ("saturation", "brightness")) for factor in scene.FACTORS]]
)
_MARGIN = np.where(_BOUNDED, 0.0, _BEYOND).astype(np.float32)


def nearest_scenes(
    images: Images | np.ndarray, start: Float[np.ndarray, "images factors"]
) -> tuple[Float[np.ndarray, "images factors"], Float[np.ndarray, " images"]]:
    """Returns the factors of the nearest scenes, and the root mean square distance to them.

    images: in [-1, 1]. start: factors to begin with, as gauges read them.
    """
    shares = (np.asarray(start, np.float64) - _LOW) / _SPAN
    inner = np.clip((shares + _MARGIN) / (1 + 2 * _MARGIN), _INSIDE, 1 - _INSIDE)
    free = np.where(_CIRCULAR, shares, np.log(inner / (1 - inner)))
    found, errors = _fit(jnp.asarray(images), jnp.asarray(free, jnp.float32))
    return np.asarray(found), np.asarray(errors)


def _factors(free: Array) -> Array:
    shares = jax.nn.sigmoid(free) * (1 + 2 * _MARGIN) - _MARGIN
    return jnp.where(_CIRCULAR, free % 1.0, shares) * _SPAN + _LOW


@functools.partial(jax.jit)
def _fit(images: Images, free: Array) -> tuple[Array, Array]:
    side = images.shape[1]
    optimizer = optax.adam(optax.cosine_decay_schedule(_RATE, STEPS))

    def errors(free: Array) -> Array:
        difference = scene.render(_factors(free), side) - images
        return jnp.mean(difference**2, axis=(1, 2, 3))

    def step(state: tuple[Array, optax.OptState, Array, Array], _: None) -> tuple:
        free, moments, best, least = state
        now, back = jax.vjp(errors, free)
        better = now < least
        best = jnp.where(better[:, None], free, best)
        (gradient,) = back(jnp.ones_like(now))
        updates, moments = optimizer.update(gradient, moments)
        return (free + updates, moments, best, jnp.minimum(now, least)), None

    begin = (free, optimizer.init(free), free, jnp.full(len(images), jnp.inf))
    (free, _, best, least), _ = jax.lax.scan(step, begin, None, length=STEPS)
    last = errors(free)
    best = jnp.where((last < least)[:, None], free, best)
    return _factors(best), jnp.sqrt(jnp.minimum(last, least))
