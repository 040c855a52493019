"""Networks that come with the package, by the names under which configs use them.

imagenet_classes.txt has ImageNet's 1000 classes in the order of their synsets, one a line, with all
synonyms: the lemmas of WordNet 3.0 (copyright 2006 Princeton University, WordNet licence), as timm
1.0.31 distributes them in imagenet_synset_to_lemma.txt (copyright 2019 Ross Wightman, Apache-2.0).
"""

import importlib.resources

GENERATORS = {"cars": "cars.safetensors"}
GAUGES = {"cars": "cars_gauges.safetensors"}
CLASSES = "imagenet_classes.txt"
IMAGENET_CLASSES = 1000


def imagenet_names() -> tuple[str, ...]:
    """Returns the names of ImageNet's classes; synonyms are separated by commas."""
    text = importlib.resources.files(__name__).joinpath(CLASSES).read_text("utf-8")
    return tuple(text.splitlines())
