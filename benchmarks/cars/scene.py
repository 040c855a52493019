"""Scenes with factors that we know: a car from the side on a road.

A scene is a stack of layers, each with a coverage and a colour; a factor changes one of the two in
the layers that it names (`OWNERS`) and nothing else. Lengths are in units of a 64th of the image's
side, so a scene looks the same at any side. Edges are smoothed over a pixel by signed distances.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from typing import TypeAlias

import jax
import jax.numpy as jnp

from navigan_jax.array_types import Array, Float, Images, Key

SPOKES = 3
_UNITS = 64.0
_GROUND = 52.0  # where wheels stand, from the top
_CLEARANCE = 3.5  # of the body's underside above the ground
_TYRE = 2.0  # its thickness
_SPOKE = 1.9  # its width


@dataclasses.dataclass(frozen=True)
class Factor:
    """A property of the scene.

    low, high: its range, in 64ths of the side, turns of the colour circle or of the wheel's
      pattern, or shares of full brightness. is_circular: whether both ends are the same.
    trained: its value in all scenes of the training set; None: uniform in the range.
    """

    name: str
    low: float
    high: float
    is_circular: bool = False
    trained: float | None = None


FACTORS = (
    Factor("body hue", 0.0, 1.0, is_circular=True),
    Factor("body saturation", 0.35, 1.0),
    Factor("body brightness", 0.45, 1.0),
    Factor("body length", 44.0, 54.0),
    Factor("body height", 8.0, 12.0),
    Factor("cabin width", 19.0, 29.0),
    Factor("cabin height", 7.0, 12.0),
    Factor("cabin place", -4.0, 4.0),
    Factor("position", -1.5, 1.5),
    Factor("ground line", 36.0, 46.0),
    Factor("wheelbase", 26.0, 30.0),
    Factor("wheel spin", 0.0, 1.0, is_circular=True),
    Factor("sky hue", 0.48, 0.78),
    Factor("sky brightness", 0.45, 1.0),
    Factor("ground brightness", 0.2, 0.7),
    Factor("glass brightness", 0.1, 0.8),
    Factor("wheel radius", 4.5, 8.5, trained=6.5),
)
NAMES = tuple(factor.name for factor in FACTORS)
TRAINED = tuple(factor for factor in FACTORS if factor.trained is None)

# For each factor: the layers that it changes, and what of them.
OWNERS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "body hue": ("colour", ("body", "cabin")),
    "body saturation": ("colour", ("body", "cabin")),
    "body brightness": ("colour", ("body", "cabin")),
    "body length": ("coverage", ("shadow", "body", "headlight", "taillight")),
    "body height": ("coverage", ("body", "cabin", "glass", "headlight", "taillight")),
    "cabin width": ("coverage", ("cabin", "glass")),
    "cabin height": ("coverage", ("cabin", "glass")),
    "cabin place": ("coverage", ("cabin", "glass")),
    "position": (
        "coverage",
        ("shadow", "cabin", "glass", "body", "headlight", "taillight", "tyres", "rims", "spokes"),
    ),
    "ground line": ("coverage", ("ground",)),
    "wheelbase": ("coverage", ("tyres", "rims", "spokes")),
    "wheel spin": ("coverage", ("spokes",)),
    "sky hue": ("colour", ("sky",)),
    "sky brightness": ("colour", ("sky",)),
    "ground brightness": ("colour", ("ground", "shadow")),
    "glass brightness": ("colour", ("glass",)),
    "wheel radius": ("coverage", ("tyres", "rims", "spokes")),
}

Colour: TypeAlias = Float[Array, "#side #side 3"]  # one for all pixels, or one for each
Layers: TypeAlias = dict[str, tuple[Float[Array, "side side"], Colour]]


def draw(key: Key, count: int, *, all_vary: bool = False) -> Float[Array, "count factors"]:
    """Returns factors, each uniform in its range; what is fixed in training only if `all_vary`."""
    shares = jax.random.uniform(key, (count, len(FACTORS)))
    return _scale(shares, all_vary=all_vary)


def from_latents(z: Float[Array, "count z"]) -> Float[Array, "count factors"]:
    """Returns the factors that a latent z ~ N(0, I) stands for, one coordinate for each.

    As the mapping of StyleGAN2 does, z is brought to length √z_dim first; the normal distribution
    function then makes a nearly uniform share of each range.
    """
    z = z / jnp.sqrt(jnp.mean(z**2, axis=1, keepdims=True) + 1e-8)
    shares = jax.scipy.stats.norm.cdf(z)
    places = [i for i, factor in enumerate(FACTORS) if factor.trained is None]
    everything = jnp.full((len(z), len(FACTORS)), 0.5).at[:, jnp.array(places)].set(shares)
    return _scale(everything, all_vary=False)


def _scale(shares: Float[Array, "count factors"], *, all_vary: bool) -> Array:
    columns = [
        jnp.full_like(share, factor.trained)
        if factor.trained is not None and not all_vary
        else factor.low + share * (factor.high - factor.low)
        for factor, share in zip(FACTORS, shares.T, strict=True)
    ]
    return jnp.stack(columns, axis=1)


@functools.partial(jax.jit, static_argnames="side")
def render(factors: Float[Array, "count factors"], side: int = 64) -> Images:
    """Returns the scenes as images [count, side, side, 3] in [-1, 1]."""
    return jax.vmap(lambda row: _compose(layers(row, side)))(factors)


def layers(factors: Float[Array, " factors"], side: int) -> Layers:
    """Returns coverage and colour of each layer of one scene, from the back to the front.

    Coverages, red, green and blue are in [0, 1].
    """
    of = dict(zip(NAMES, factors, strict=True))
    unit = _UNITS / side
    ys, xs = jnp.meshgrid(*[(jnp.arange(side) + 0.5) * unit] * 2, indexing="ij")

    def inside(distance: Array) -> Array:
        return jnp.clip(0.5 - distance / unit, 0, 1)

    x = xs - 32 - of["position"]
    floor = _GROUND - _CLEARANCE
    roof_of_body = floor - of["body height"]
    nose = of["body length"] / 2
    wheels = _wheels(x, ys, of, inside)
    cabin = _cabin(x, ys, of, roof_of_body)
    bodywork = _hsv(of["body hue"], of["body saturation"], of["body brightness"])
    lit = (0.72 + 0.28 * jnp.clip((floor - ys) / 22, 0, 1))[..., None]
    sky = _hsv(of["sky hue"], jnp.asarray(0.45), of["sky brightness"])
    paler = jnp.clip(ys / _UNITS, 0, 1)[..., None] * 0.5
    grey = of["ground brightness"] * _rgb(1.0, 0.98, 0.94)
    lamp_y = floor - 0.68 * of["body height"]

    def lamp(centre: Array) -> Array:
        return inside(_box(x - centre, ys - lamp_y, jnp.asarray(1.6), jnp.asarray(1.3), 0.8))

    return {
        "sky": (jnp.ones((side, side)), sky + (1 - sky) * paler),
        "ground": (inside(of["ground line"] - ys), grey),
        "shadow": (inside(_box(x, ys - _GROUND, nose - 1, jnp.asarray(1.7), 1.6)), 0.45 * grey),
        "cabin": (inside(cabin), bodywork * lit),
        "glass": (
            inside(jnp.maximum(cabin + 2.0, 0.9 - jnp.abs(x - of["cabin place"]))),
            of["glass brightness"] * _rgb(0.85, 0.95, 1.0),
        ),
        "body": (
            inside(_box(x, ys - (roof_of_body + floor) / 2, nose, of["body height"] / 2, 3.2)),
            bodywork * lit,
        ),
        "headlight": (lamp(nose - 2.2), _rgb(1.0, 0.95, 0.6)),
        "taillight": (lamp(2.2 - nose), _rgb(0.85, 0.1, 0.1)),
        **wheels,
    }


def _wheels(
    x: Array, y: Array, of: Mapping[str, Array], inside: Callable[[Array], Array]
) -> Layers:
    """Returns tyres, rims and spokes; the ground stays below wheels of any radius."""
    radius, half = of["wheel radius"], of["wheelbase"] / 2
    dx = jnp.abs(x) - half
    # Both wheels turn the same way: right of the middle x - half, left of it x + half.
    signed_dx = jnp.where(x > 0, x - half, x + half)
    dy = y - (_GROUND - radius)
    distance = jnp.hypot(dx, dy)
    rim = radius - _TYRE
    sector = 2 * math.pi / SPOKES
    angle = jnp.arctan2(dy, signed_dx) - of["wheel spin"] * sector
    angle = angle - sector * jnp.round(angle / sector)
    across = jnp.where(jnp.cos(angle) > 0, jnp.abs(distance * jnp.sin(angle)), distance)
    spoke = jnp.maximum(across - _SPOKE / 2, distance - rim)
    return {
        "tyres": (inside(distance - radius), _rgb(0.07, 0.07, 0.08)),
        "rims": (inside(distance - rim), _rgb(0.30, 0.30, 0.32)),
        "spokes": (inside(spoke), _rgb(0.95, 0.95, 0.97)),
    }


def _cabin(x: Array, y: Array, of: Mapping[str, Array], base: Array) -> Array:
    """Returns the signed distance of a trapezoid that stands on the body."""
    height, half = of["cabin height"], of["cabin width"] / 2
    above = base + 2 - y  # two units of it are behind the body
    slope = 0.42  # of both windscreens: so much narrower with each unit of height
    side = (jnp.abs(x - of["cabin place"]) - half + slope * above) / math.hypot(1, slope)
    return jnp.maximum(jnp.maximum(side, above - height - 2), -above)


def _box(x: Array, y: Array, half_x: Array, half_y: Array, corner: float) -> Array:
    """Returns the signed distance of a box with round corners."""
    dx, dy = jnp.abs(x) - half_x + corner, jnp.abs(y) - half_y + corner
    outside = jnp.sqrt(jnp.maximum(dx, 0) ** 2 + jnp.maximum(dy, 0) ** 2 + 1e-12)
    return outside + jnp.minimum(jnp.maximum(dx, dy), 0) - corner


def _rgb(red: float, green: float, blue: float) -> Colour:
    """Returns the colour for all pixels."""
    return jnp.array([[[red, green, blue]]])


def _hsv(hue: Array, saturation: Array, value: Array) -> Colour:
    """Returns the colour for all pixels; the hue is in turns."""
    turns = jnp.abs((hue + _rgb(1.0, 2 / 3, 1 / 3)) % 1 * 6 - 3) - 1
    return value * (1 + saturation * (jnp.clip(turns, 0, 1) - 1))


def _compose(stack: Layers) -> Float[Array, "side side 3"]:
    image = jnp.zeros((1, 1, 3))
    for coverage, colour in stack.values():
        image = image + coverage[..., None] * (colour - image)
    return 2 * image - 1
