"""Networks that come with the package, by the names under which configs use them.

imagenet_classes.txt has ImageNet's 1000 classes in the order of their synsets, one a line, with all
synonyms: WordNet's lemmas, as timm distributes them (Apache-2.0).
"""

import importlib.resources

GENERATORS = {"cars": "cars.safetensors"}
GAUGES = {"cars": "cars_gauges.safetensors"}
IMAGENET_CLASSES = 1000


def imagenet_names() -> tuple[str, ...]:
    """Returns the names of ImageNet's classes; synonyms are separated by commas."""
    text = importlib.resources.files(__name__).joinpath("imagenet_classes.txt").read_text("utf-8")
    return tuple(text.splitlines())
