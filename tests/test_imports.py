"""Who may import whom, and what may be used only in one place.

A file may import only what stands above it in ORDER. A new file gets its line there first.
"""

import ast
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]

# Names below navigan_jax; a package's own name is its __init__. Some await their file.
ORDER = [
    "errors",
    "faults",
    "array_types",
    "channels",
    "own_code",
    "environment",
    "cache",
    "config",
    "command_line",
    "params",
    "checkpoints",
    "assets",
    "assets.finding",
    "notes",
    "suggestions",
    "progress",
    "devices",
    "linalg",
    "nn.layers",
    "nn.winograd",
    "nn.affine",
    "nn.spectral_norm",
    "nn.resampling",
    "nn.pixels",
    "nn",
    "generators.latent_space",
    "generators.base",
    "generators.stylegan2.stages",
    "generators.stylegan2.layers",
    "generators.stylegan2.mapping",
    "generators.stylegan2.synthesis",
    "generators.stylegan2.network",
    "generators.stylegan2",
    "generators.dcgan",
    "generators.biggan.layers",
    "generators.biggan.deep",
    "generators.biggan.original",
    "generators.biggan",
    "generators.pix2pixhd.layouts",
    "generators.pix2pixhd.label_maps",
    "generators.pix2pixhd.network",
    "generators.pix2pixhd",
    "generators.proggan",
    "generators.sngan",
    "generators",
    "generators.tracing",
    "generators.own",
    "generators.files",
    "generators.stored_arrays",
    "generators.latents",
    "generators.pix2pixhd.map_files",
    "generators.source_map",
    "perceptual.base",
    "perceptual.backbones",
    "perceptual.lpips",
    "perceptual.nlpd",
    "perceptual.l2",
    "perceptual",
    "perceptual.files",
    "subspaces.base",
    "subspaces.products",
    "subspaces.reduction",
    "subspaces.svd",
    "subspaces.hessian",
    "subspaces.runs",
    "subspaces",
    "directions",
    "spectrum",
    "inverted",
    "editing.calibration",
    "editing.plausibility",
    "editing.edit",
    "editing.kept",
    "editing.normalised",
    "editing.bake",
    "editing.recipe",
    "editing.recipe_files",
    "editing.rendering",
    "editing",
    "inversion.photographs",
    "inversion.placing",
    "inversion.likeness",
    "inversion.codes",
    "inversion.objective",
    "inversion.trust_region",
    "inversion.coarse",
    "inversion.adam",
    "inversion.quasi_newton",
    "inversion.tuning",
    "inversion.fit",
    "inversion",
    "discovery.matrix",
    "discovery.sampling",
    "discovery.reconstructor",
    "discovery.reconstructor_files",
    "discovery.latent_network",
    "discovery.loss",
    "discovery.step",
    "discovery.ranking",
    "discovery.shift_scale",
    "discovery.loop",
    "discovery.checkpointing",
    "discovery",
    "evaluation.inception",
    "evaluation.fid",
    "evaluation.fid_curve",
    "evaluation.locality",
    "evaluation.factors",
    "evaluation.reproduction",
    "evaluation.gauge_network",
    "evaluation.gauges",
    "evaluation.accuracy",
    "evaluation",
    "showcase.base",
    "showcase.pictures",
    "showcase.grid",
    "showcase.comparison",
    "showcase.plots",
    "showcase.curves",
    "showcase.gallery",
    "showcase.animation",
    "showcase.video",
    "showcase.figure",
    "showcase.maps",
    "showcase.heat_map",
    "showcase.layers_page",
    "showcase",
    "viewer.worker",
    "viewer.proxies",
    "viewer.access",
    "viewer.requests",
    "viewer.own_latents",
    "viewer.own_photographs",
    "viewer.studio",
    "viewer.exports",
    "viewer.server",
    "viewer",
    "testing",
    "tasks.settings",
    "tasks.workdirs",
    "tasks.inputs",
    "tasks.budget",
    "tasks.calibrating",
    "tasks.showing",
    "tasks.choosing",
    "tasks.hessian",
    "tasks.training",
    "tasks.discover",
    "tasks.photographs",
    "tasks.bake",
    "tasks.viewer",
    "tasks.gallery",
    "tasks.edit",
    "tasks.maps",
    "tasks.factors",
    "tasks.sweep",
    "tasks.invert",
    "tasks",
    "main",
]

# What may be imported only below the places named.
ONLY_IN: Mapping[str, Sequence[str]] = {
    "torch": ["tools"],
    "pickle": ["tools"],
    "pickletools": ["tools.convert_weights.readers"],
    "ml_collections": [
        "configs",
        "navigan_jax.config",
        "navigan_jax.tasks",
        "navigan_jax.main",
    ],
    "absl.app": ["navigan_jax.main"],
    # Only what a user names is run: a config, and an own function.
    "runpy": ["navigan_jax.config"],
    "importlib.util": ["navigan_jax.own_code"],
    "absl.flags": ["navigan_jax.main"],
    "PIL": [
        "navigan_jax.showcase",
        "navigan_jax.generators.pix2pixhd.map_files",
        "navigan_jax.inversion",
    ],
    "imageio": ["navigan_jax.showcase"],
    "imageio_ffmpeg": ["navigan_jax.showcase"],
    "matplotlib": ["navigan_jax.showcase"],
    "navigan_jax.testing": ["tests"],
}

# What may be called only in navigan_jax.devices: placement and talk between devices.
DEVICES_ALONE = {
    "all_gather",
    "device_put",
    "pmap",
    "pmean",
    "process_count",
    "process_index",
    "psum",
    "shard_map",
}

READERS = "tools.convert_weights.readers"
NETWORKS = "tools.convert_weights.networks"
FINDING = "tools.convert_weights.finding"
# What was read, of whatever container: all that a network knows of the readers.
CONTENT = (f"{READERS}.structure", f"{READERS}.modules")

ARCHITECTURES = {"stylegan2", "dcgan", "biggan", "pix2pixhd", "proggan", "sngan"}


def _rank(module: str) -> int | None:
    name = module.removeprefix("navigan_jax").removeprefix(".")
    if not name:
        return -1  # the package itself imports nothing, so all may import it
    return ORDER.index(name) if name in ORDER else None


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yields line and full name of everything imported, inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield node.lineno, f"{'.' * node.level}{node.module or ''}.{alias.name}"


def _is_below(name: str, place: str) -> bool:
    return name == place or name.startswith(f"{place}.")


def _module_of(name: str) -> str:
    """Returns the module of ours that holds `name`: the name itself or what it is taken from."""
    parent = name.rpartition(".")[0]
    is_module = _rank(name) is not None or parent == "navigan_jax"
    return name if is_module else parent


def _architecture(module: str) -> str:
    """Returns the name right below generators, which is an architecture or a part they share."""
    return module.removeprefix("navigan_jax.generators.").partition(".")[0]


def _import_problem(module: str, name: str) -> str | None:
    """Says what is wrong with `module` importing `name`, if something is."""
    if name.startswith("."):
        return f"imports {name}: write the name in full"
    for banned, places in ONLY_IN.items():
        if _is_below(name, banned) and not any(_is_below(module, place) for place in places):
            return f"imports {name}: only for {', '.join(places)}"
    if _is_below(module, "configs"):
        ours = _is_below(name, "navigan_jax") or _is_below(name, "tools")
        return f"imports {name}: configs import each other alone" if ours else None
    if _is_below(module, READERS) and _is_below(name, "tools") and not _is_below(name, READERS):
        return f"imports {name}: readers know containers alone"
    if any(_is_below(module, place) for place in (NETWORKS, FINDING)):
        is_reader = _is_below(name, READERS) and not any(_is_below(name, c) for c in CONTENT)
        if is_reader or _is_below(name, "tools.convert_weights.foreign"):
            return f"imports {name}: networks know no container"
    if not _is_below(module, "navigan_jax"):
        return None
    if _is_below(name, "tools") or _is_below(name, "configs"):
        return f"imports {name}: the package knows neither tools nor configs"
    if not _is_below(name, "navigan_jax"):
        return None
    target = _module_of(name)
    own, other = _rank(module), _rank(target)
    if own is None or other is None:
        return f"imports {target} into {module}: one of them is not in ORDER"
    if other >= own:
        return f"imports {target}, which does not stand above it in ORDER"
    both = {_architecture(module), _architecture(target)}
    if len(both) == 2 and both <= ARCHITECTURES:
        return f"imports {target}: architectures do not import each other"
    if _is_below(module, "navigan_jax.subspaces") and _is_below(target, "navigan_jax.perceptual"):
        return f"imports {target}: a subspace gets its distance as a function"
    return None


def _use_problem(module: str, node: ast.AST) -> str | None:
    """Says what is wrong with `module` using a name or an argument, if something is."""
    name = node.attr if isinstance(node, ast.Attribute) else None
    name = node.id if isinstance(node, ast.Name) else name
    name = node.name if isinstance(node, ast.alias) else name
    if name in DEVICES_ALONE and module != "navigan_jax.devices":
        return f"uses {name}: only navigan_jax.devices does"
    if name == "import_module" and module == "navigan_jax.own_code":
        return None  # a module that a user names
    if name in {"eval", "exec", "__import__", "import_module"}:
        return f"uses {name}: no text becomes code"
    if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
        is_off = isinstance(node.value, ast.Constant) and node.value.value is False
        return None if is_off else "sets allow_pickle: no pickled arrays are read"
    return None


def problems(module: str, source: str) -> list[str]:
    """Returns a line for each thing that the file `module` may not do."""
    tree = ast.parse(source)
    found = [(line, _import_problem(module, name)) for line, name in _imports(tree)]
    found += [(getattr(node, "lineno", 0), _use_problem(module, node)) for node in ast.walk(tree)]
    if module.rpartition(".")[2] in {"util", "utils"}:
        found.append((1, "is called utils: name it after what it holds"))
    return [f"{module}:{line} {problem}" for line, problem in sorted(found, key=str) if problem]


def _module_name(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = sorted(
    path for top in ("navigan_jax", "tools", "configs") for path in ROOT.glob(f"{top}/**/*.py")
)


@pytest.mark.parametrize("path", FILES, ids=_module_name)
def test_file_imports_and_uses_what_it_may(path: pathlib.Path) -> None:
    assert not problems(_module_name(path), path.read_text(encoding="utf-8"))


def test_order_has_every_file_of_the_package_once() -> None:
    names = {_module_name(path) for path in FILES if path.is_relative_to(ROOT / "navigan_jax")}
    missing = {name for name in names if _rank(name) is None}
    assert not missing, f"add to ORDER, below all that they import: {sorted(missing)}"
    assert len(set(ORDER)) == len(ORDER)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("navigan_jax.tasks", "from navigan_jax.generators.base import Generator"),
        ("navigan_jax.generators", "from navigan_jax.generators.dcgan import dcgan"),
        ("navigan_jax.generators.files", "from navigan_jax import generators, params"),
        ("navigan_jax.main", "from absl import flags\nfrom ml_collections import config_flags"),
        ("navigan_jax.showcase.grid", "import PIL.Image"),
        ("navigan_jax.devices", "import jax\nx = jax.process_index()"),
        ("navigan_jax.progress", "def bar(is_main): return is_main"),
        (
            "tools.convert_weights.readers.unpickle",
            "import pickletools\nfrom navigan_jax import params",
        ),
        (
            "tools.convert_weights.networks.dcgan",
            "from tools.convert_weights.readers.structure import Record",
        ),
        ("configs.tiny", "from configs import hessian\nfrom ml_collections import config_dict"),
    ],
)
def test_checker_accepts(module: str, source: str) -> None:
    assert not problems(module, source)


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        (
            "navigan_jax.params",
            "from navigan_jax import tasks",
            "tasks, which does not stand above",
        ),
        ("navigan_jax.params", "def f():\n  import navigan_jax.linalg", "linalg, which does not"),
        ("navigan_jax.params", "import navigan_jax.params", "params, which does not stand above"),
        (
            "navigan_jax.generators.base",
            "from navigan_jax import generators",
            "does not stand above",
        ),
        ("navigan_jax.params", "from . import linalg", "write the name in full"),
        ("navigan_jax.params", "import navigan_jax.novel", "not in ORDER"),
        ("navigan_jax.novel", "import navigan_jax.errors", "not in ORDER"),
        ("navigan_jax.generators.sngan", "from navigan_jax.generators import dcgan", "each other"),
        (
            "navigan_jax.generators.sngan",
            "from navigan_jax.generators.stylegan2 import layers",
            "each other",
        ),
        (
            "navigan_jax.subspaces.hessian",
            "from navigan_jax.perceptual import lpips",
            "as a function",
        ),
        ("navigan_jax.tasks", "from navigan_jax import testing", "only for tests"),
        ("navigan_jax.tasks", "import tools.convert_weights", "neither tools nor configs"),
        ("navigan_jax.tasks", "from configs import hessian", "neither tools nor configs"),
        ("navigan_jax.checkpoints", "import torch", "only for tools"),
        ("navigan_jax.checkpoints", "from torch import nn", "only for tools"),
        ("navigan_jax.checkpoints", "def f():\n  from pickle import load", "only for tools"),
        ("navigan_jax.checkpoints", "import pickletools", "only for tools.convert_weights.readers"),
        (
            "navigan_jax.checkpoints",
            "import numpy as np\nnp.load('a', allow_pickle=True)",
            "pickled",
        ),
        ("navigan_jax.linalg", "import ml_collections", "only for configs, navigan_jax.config"),
        ("navigan_jax.tasks", "from absl import flags", "only for navigan_jax.main"),
        ("navigan_jax.editing.edit", "from PIL import Image", "only for navigan_jax.showcase"),
        ("navigan_jax.tasks", "import matplotlib.pyplot", "only for navigan_jax.showcase"),
        ("navigan_jax.linalg", "import jax\njax.pmap(f)", "uses pmap"),
        ("navigan_jax.linalg", "from jax.lax import psum", "uses psum"),
        ("navigan_jax.tasks", "import jax\nmain = jax.process_index() == 0", "uses process_index"),
        (
            "navigan_jax.tasks",
            "import importlib\nimportlib.import_module('a')",
            "uses import_module",
        ),
        ("navigan_jax.tasks", "from importlib import import_module", "uses import_module"),
        ("navigan_jax.tasks", "exec('a')", "uses exec"),
        ("navigan_jax.generators.utils", "", "is called utils"),
        ("configs.tiny", "from navigan_jax import params", "configs import each other alone"),
        (
            "tools.convert_weights.readers.wheel",
            "from tools.convert_weights.networks import dcgan",
            "containers alone",
        ),
        (
            "tools.convert_weights.networks.dcgan",
            "from tools.convert_weights.readers.torch_file import read_torch",
            "no container",
        ),
        (
            "tools.convert_weights.finding",
            "from tools.convert_weights.foreign import read_foreign",
            "no container",
        ),
    ],
)
def test_checker_rejects(module: str, source: str, complaint: str) -> None:
    found = problems(module, source)
    assert found and all(complaint in line for line in found)
