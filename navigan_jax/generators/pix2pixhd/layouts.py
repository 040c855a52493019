"""Plausible street layouts from a random key: label maps of simple polygons, not of real streets.

They stand in for label maps where a user has none, so that every task can run. Sky, buildings and
vegetation stand behind a road that narrows to a vanishing point; poles, persons and cars stand on
it at random depths, near ones before far ones. Labels and instance numbers are those of Cityscapes.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax.array_types import Array, Float, Key

ROAD, SIDEWALK, BUILDING, POLE, SIGN, VEGETATION, SKY, PERSON, CAR = (
    7,
    8,
    11,
    17,
    20,
    21,
    23,
    24,
    26,
)
_PER_CLASS = 1000  # an instance number is label · 1000 + its number
_BUILDINGS, _TREES, _POLES, _PERSONS, _CARS = 8, 5, 4, 4, 6

# Names and colours of the 35 labels, as the dataset publishes them.
NAMES = (
    "unlabeled",
    "ego vehicle",
    "rectification border",
    "out of roi",
    "static",
    "dynamic",
    "ground",
    "road",
    "sidewalk",
    "parking",
    "rail track",
    "building",
    "wall",
    "fence",
    "guard rail",
    "bridge",
    "tunnel",
    "pole",
    "polegroup",
    "traffic light",
    "traffic sign",
    "vegetation",
    "terrain",
    "sky",
    "person",
    "rider",
    "car",
    "truck",
    "bus",
    "caravan",
    "trailer",
    "train",
    "motorcycle",
    "bicycle",
    "license plate",
)
_COLOURS = {
    5: (111, 74, 0),
    6: (81, 0, 81),
    7: (128, 64, 128),
    8: (244, 35, 232),
    9: (250, 170, 160),
    10: (230, 150, 140),
    11: (70, 70, 70),
    12: (102, 102, 156),
    13: (190, 153, 153),
    14: (180, 165, 180),
    15: (150, 100, 100),
    16: (150, 120, 90),
    17: (153, 153, 153),
    18: (153, 153, 153),
    19: (250, 170, 30),
    20: (220, 220, 0),
    21: (107, 142, 35),
    22: (152, 251, 152),
    23: (70, 130, 180),
    24: (220, 20, 60),
    25: (255, 0, 0),
    26: (0, 0, 142),
    27: (0, 0, 70),
    28: (0, 60, 100),
    29: (0, 0, 90),
    30: (0, 0, 110),
    31: (0, 80, 100),
    32: (0, 0, 230),
    33: (119, 11, 32),
    34: (0, 0, 142),
}


class _Map(NamedTuple):
    """Label and instance number of each pixel, [height, width]."""

    labels: Array
    instances: Array

    def paint(self, mask: Array, label: int, number: Array | int | None = None) -> "_Map":
        """Returns the map with a region on top; number: of a countable object."""
        instance = label if number is None else _PER_CLASS * label + number
        return _Map(jnp.where(mask, label, self.labels), jnp.where(mask, instance, self.instances))


def draw_layout(key: Key, height: int, width: int) -> Float[Array, "height width 2"]:
    """Returns labels and instance numbers of one layout, whole numbers as float32."""
    keys = jax.random.split(key, 7)
    down = ((jnp.arange(height) + 0.5) / height)[:, None]
    across = ((jnp.arange(width) + 0.5) / width)[None]
    horizon, centre = (
        jax.random.uniform(key, minval=low, maxval=high)
        for key, low, high in ((keys[0], 0.36, 0.5), (keys[1], 0.35, 0.65))
    )
    depth = (down - horizon) / (1 - horizon)  # 0 at the horizon, 1 at the lower edge
    sky = jnp.full((height, width), SKY)
    scene = _Map(sky, sky)
    for row in jax.random.uniform(keys[2], (_BUILDINGS, 3)):
        left, size, top = row[0] * 1.2 - 0.2, 0.1 + 0.25 * row[1], horizon * (0.15 + 0.8 * row[2])
        inside = (across > left) & (across < left + size) & (down > top) & (down < horizon + 0.05)
        scene = scene.paint(inside, BUILDING)
    scene = scene.paint(down > horizon, SIDEWALK)
    for row in jax.random.uniform(keys[3], (_TREES, 3)):
        size, middle = 0.05 + 0.08 * row[1], horizon - 0.02 - 0.1 * row[2]
        inside = ((across - row[0]) / size) ** 2 + ((down - middle) / (1.3 * size)) ** 2 < 1
        scene = scene.paint(inside & (down < horizon + 0.08), VEGETATION)
    on_road = jnp.abs(across - centre) < 0.02 + 0.55 * depth
    scene = scene.paint(on_road & (depth > 0), ROAD)
    scene = _stand(scene, keys[4], _POLES, POLE, across, down, horizon, centre)
    scene = _stand(scene, keys[5], _PERSONS, PERSON, across, down, horizon, centre)
    scene = _stand(scene, keys[6], _CARS, CAR, across, down, horizon, centre)
    return jnp.stack([scene.labels, scene.instances], axis=-1).astype(jnp.float32)


def _stand(
    scene: _Map,
    key: Key,
    count: int,
    label: int,
    across: Array,
    down: Array,
    horizon: Array,
    centre: Array,
) -> _Map:
    """Returns the scene with objects on the ground: cars on the road, others beside it."""
    drawn = jax.random.uniform(key, (count, 3))
    depths = jnp.sort(0.06 + 0.75 * drawn[:, 0] ** 2)  # the nearest is painted last
    for number in range(count):
        depth, side, place = depths[number], jnp.sign(drawn[number, 1] - 0.5), drawn[number, 2]
        foot = horizon + depth * (1 - horizon)
        if label == CAR:
            x = centre + (place - 0.5) * 0.8 * depth
            wide, high = 0.11 * depth + 0.01, 0.3 * depth + 0.015
            body = (jnp.abs(across - x) < wide) & (down < foot) & (down > foot - 0.6 * high)
            cabin = (jnp.abs(across - x) < 0.7 * wide) & (down < foot) & (down > foot - high)
            scene = scene.paint(body | cabin, CAR, number)
            continue
        x = centre + side * (0.03 + (0.6 + 0.2 * place) * depth)
        if label == PERSON:
            wide, high = 0.02 * depth + 0.004, 0.35 * depth + 0.02
            body = (jnp.abs(across - x) < wide) & (down < foot) & (down > foot - 0.8 * high)
            head = ((across - x) / (0.7 * wide)) ** 2
            head = head + ((down - foot + 0.88 * high) / (0.13 * high)) ** 2
            scene = scene.paint(body | (head < 1), PERSON, number)
            continue
        wide, high = 0.008 * depth + 0.0015, 0.9 * depth + 0.05
        pole = (jnp.abs(across - x) < wide) & (down < foot) & (down > foot - high)
        sign = (jnp.abs(across - x) < 4 * wide) & (jnp.abs(down - foot + high) < 0.1 * high)
        scene = scene.paint(pole, POLE).paint(sign, SIGN)
    return scene


def colour(labels: np.ndarray) -> np.ndarray:
    """Returns label maps [*batch, height, width] as uint8 RGB, in the dataset's colours.

    Labels without a colour there get an even spread of hues; the first five are black.
    """
    highest = max(len(NAMES), int(labels.max(initial=0)) + 1)
    table = np.zeros((highest, 3), np.uint8)
    for label, rgb in _COLOURS.items():
        table[label] = rgb
    for label in range(len(NAMES), highest):
        angle = 2 * np.pi * (label * 0.618 + np.arange(3) / 3)
        table[label] = np.uint8(127.5 + 127 * np.cos(angle))
    return table[labels.astype(int)]
