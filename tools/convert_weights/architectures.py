"""Recognises the network in a foreign file by the names and shapes of its arrays."""

from tools.convert_weights.networks import NETWORKS
from tools.convert_weights.networks.base import Shapes

UNKNOWN = "unknown"


def guess(shapes: Shapes) -> str:
    """Returns the name of the architecture with these arrays, or UNKNOWN."""
    rules = (network.recognise for network in NETWORKS.values())
    return next((found for rule in rules if (found := rule(shapes))), UNKNOWN)


def resolution(architecture: str, shapes: Shapes) -> int | None:
    """Returns the side of the generator's images in pixels, or None if it cannot be derived."""
    sides = {name: side for network in NETWORKS.values() for name, side in network.sides.items()}
    return sides[architecture](shapes) if architecture in sides else None
