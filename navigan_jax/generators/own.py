"""Anybody's own generator: a JAX function, a Flax module, or a chain of functions.

A chain of stages lets all edits of a layer share what comes before it. One function works too; it
only takes more time. Which stage reads which weight is found by tracing, so nobody declares it.
"""

import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import channels, checkpoints, own_code
from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Params
from navigan_jax.errors import InputError
from navigan_jax.generators import tracing
from navigan_jax.generators.base import EditableLayer, Generator
from navigan_jax.generators.latent_space import LatentSpace, NormalSpace
from navigan_jax.nn.layers import dense_change

_FORMAT = "params"
# Images of one latent, alone and in a batch, may differ by the rounding of float32, summed up.
_ROUNDING = 1e-3
_WIDEST = 8.0  # a generator without a final tanh stays far within


class OwnGenerator(NamedTuple):
    """What `own_generator` returns: the generator, and its parameters as {path: array}, nested."""

    generator: Generator
    params: Params


class _Chain(nn.Module):
    """Stages that are functions (params, carry) of the whole tree of parameters.

    reads: for each stage, the paths of the weights that it reads.
    """

    stages: tuple[Callable[[Any, Any], Any], ...]
    reads: tuple[frozenset[str], ...]
    shapes: tuple[tuple[str, tuple[int, ...], str], ...]  # path, shape and dtype of each parameter
    by_matmul: tuple[str, ...] = ()  # unused: only the functions know how they compute

    def run(self, carry: Any, start: int, stop: int) -> Any:
        if self.is_initializing():
            self._init()
        params = self.variables["params"]
        changes = params_lib.flatten(self.variables.get("changes", {}))
        for index in range(start, stop):
            own = {path: dense_change(changes[path]) for path in changes.keys() & self.reads[index]}
            carry = _run_each(self.stages[index], params, carry, own)
        return carry

    def _init(self) -> None:
        leaves = {}
        for path, shape, dtype in self.shapes:
            scale = 1 / np.sqrt(max(1, np.prod(shape[:-1], dtype=int)))
            leaf = scale * jax.random.normal(self.make_rng("params"), shape)
            leaves[path] = leaf.astype(dtype)
        for name, branch in params_lib.unflatten(leaves).items():
            self.put_variable("params", name, branch)


def _run_each(
    stage: Callable[[Any, Any], Any], params: Params, carry: Any, own: Mapping[str, Array]
) -> Any:
    """Returns the stage's output; `own` has a change of weights for each sample."""
    if not own:
        return stage(params, carry)

    def run_one(row: Any, change: dict[str, Array]) -> Any:
        flat = params_lib.flatten(params)
        changed = flat | {path: flat[path] + change[path] for path in change}
        output = stage(params_lib.unflatten(changed), jax.tree.map(lambda leaf: leaf[None], row))
        return jax.tree.map(lambda leaf: leaf[0], output)

    return jax.vmap(run_one)(carry, dict(own))


def own_generator(
    network: nn.Module | Callable[..., Any] | Sequence[Callable[..., Any]],
    params: Any,
    *,
    z_dim: int = 0,
    label_dim: int = 0,
    label_names: Sequence[str] = (),
    space: LatentSpace | None = None,
    image_range: tuple[float, float] = (-1.0, 1.0),
    name: str = "own",
) -> OwnGenerator:
    """Returns a generator for all tasks, made of a function or a Flax module and its parameters.

    network: a function (params, latents) -> images; a linen module, applied to the latents; or
      several functions (params, x) -> x, a chain from the latents to the images. Images are
      [batch, height, width, channels] of floats, with 1 to 4 channels. A latent gives the same
      image each time and in every batch: normalise with stored statistics, and drop nothing out.
    params: any tree of arrays that the network takes: of a linen module its variables, or the
      collection "params" alone. Every float32 array with two axes or more is an editable layer.
    z_dim: the size of z ~ N(0, I). label_dim: the number of classes, 0 for none; with classes, a
      latent is z followed by a one-hot label. label_names: of the classes; may be empty.
    space: the latent space, instead of z_dim and label_dim.
    image_range: the values of black and white in the network's images. name: in messages and files.

    Raises: InputError for what cannot work: other images, images that are not finite, that differ
      from call to call or with the rest of the batch, or a tree without an editable weight.
    """
    if space is None:
        if not all(type(size) is int for size in (z_dim, label_dim)) or z_dim < 1 or label_dim < 0:
            raise InputError(
                f"{name}: expected z_dim, a positive whole number, and label_dim, 0 or more; got "
                f"{z_dim!r} and {label_dim!r}; give the size of the latents, or a space"
            )
        space = NormalSpace(z_dim, label_dim, tuple(label_names))
    flat, restore = _flatten(params, name)
    stages = _with_range(
        [_with_tree(each, restore) for each in _stages(network)], image_range, name
    )
    tree = params_lib.unflatten(flat)
    reads, image = _trace(stages, flat, space, name)
    _check_shape(image, name)
    height, width, image_channels = image.shape[1:]
    generator = Generator(
        architecture=name,
        network=_Chain(
            stages=stages,
            reads=tuple(frozenset(sides) for sides in reads),
            shapes=tuple((path, leaf.shape, leaf.dtype.name) for path, leaf in flat.items()),
        ),
        space=space,
        resolution=height,
        width=width,
        image_channels=image_channels,
        mapping_stages=0,
        stages=len(stages),
        layers=_layers(flat, reads, name),
    )
    _check_images(generator, tree, name)
    return OwnGenerator(generator, tree)


def read_own(text: str) -> OwnGenerator:
    """Returns what the function in "FILE.py:NAME" or "MODULE:NAME" makes with `own_generator`.

    Raises: InputError if there is no such function, it fails, or it returns something else.
    """
    made = own_code.call_function(text)
    if not isinstance(made, OwnGenerator):
        raise InputError(
            f"{text}: expected a function that returns a generator; got a {type(made).__name__}; "
            "return navigan_jax.generators.own.own_generator(network, params, z_dim=...)"
        )
    return made


def write_params(path: str | os.PathLike[str], params: Any) -> None:
    """Writes a tree of parameters as a safetensors file of {path: array}, atomically.

    Raises: InputError if the tree holds anything but finite arrays.
    """
    metadata = {"format": f"navigan_jax.{_FORMAT}", "format_version": "1"}
    checkpoints.write_arrays(path, _flatten(params, str(path))[0], metadata)


def read_params(path: str | os.PathLike[str], like: Any) -> Any:
    """Returns the parameters that `write_params` (or the task bake) wrote.

    like: the tree that `own_generator` was given; the result has its structure.
    Raises: InputError if the file is missing, damaged, or does not fit that tree.
    """
    arrays, metadata = checkpoints.read_arrays(path)
    checkpoints.require_format(path, metadata, _FORMAT)
    flat, restore = _flatten(like, str(path))
    differences = params_lib.describe_differences(
        params_lib.unflatten(flat), params_lib.unflatten(arrays)
    )
    if differences:
        raise InputError(
            f"{path}: expected parameters like those given; got others; give the tree of the "
            "network that they belong to:\n  " + "\n  ".join(differences)
        )
    return restore(params_lib.unflatten(arrays))


def _flatten(params: Any, name: str) -> tuple[dict[str, np.ndarray], Callable[[Params], Any]]:
    """Returns {path: array} of any tree, and the function that makes the tree of such a dict.

    A path leaves out the name of Flax's collection "params".
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(params)
    start = "params/" if isinstance(params, Mapping) and "params" in params else ""
    paths = ["/".join(_parts(keys)).removeprefix(start) or "weight" for keys, _ in leaves]
    if len(set(paths)) != len(paths):
        twice = sorted({path for path in paths if paths.count(path) > 1})
        raise InputError(
            f"{name}: expected a tree of parameters with different paths; got {', '.join(twice)} "
            "more than once; rename the keys"
        )
    flat = {}
    for path, (_, leaf) in zip(paths, leaves, strict=True):
        array = np.asarray(leaf)
        if array.dtype.kind not in "fiub" and array.dtype.name != "bfloat16":
            raise InputError(
                f"{name}: expected parameters that are arrays of real numbers; got {path} of type "
                f"{type(leaf).__name__}; leave it out of the tree"
            )
        flat[path] = array
    if bad := params_lib.non_finite_paths(flat):
        raise InputError(
            f"{name}: expected finite parameters; got NaN or infinity in {', '.join(bad)}; take "
            "another checkpoint"
        )

    def restore(tree: Params) -> Any:
        named = params_lib.flatten(tree)
        return jax.tree.unflatten(structure, [named[path] for path in paths])

    return dict(sorted(flat.items())), restore


def _parts(keys: Sequence[Any]) -> list[str]:
    """Returns the path's words; that of NNX's variables, which hold one "value", is left out."""
    words = []
    for key in keys:
        if isinstance(key, jax.tree_util.GetAttrKey):
            if key.name != "value":
                words.append(key.name)
        else:
            words.append(str(getattr(key, "key", getattr(key, "idx", key))).replace("/", "."))
    return words


def _stages(network: Any) -> list[Callable[[Any, Any], Any]]:
    if isinstance(network, nn.Module):
        return [functools.partial(_apply, network)]
    return [network] if callable(network) else list(network)


def _apply(module: nn.Module, variables: Any, latents: Any) -> Any:
    is_whole = isinstance(variables, Mapping) and "params" in variables
    return module.apply(variables if is_whole else {"params": variables}, latents)


def _with_tree(
    stage: Callable[[Any, Any], Any], restore: Callable[[Params], Any]
) -> Callable[[Params, Any], Any]:
    def run(params: Params, carry: Any) -> Any:
        return stage(restore(params), carry)

    return run


def _with_range(
    stages: Sequence[Callable[[Params, Any], Any]], image_range: tuple[float, float], name: str
) -> tuple[Callable[[Params, Any], Any], ...]:
    """Returns the stages, of which the last gives images between -1 and 1."""
    if not stages:
        raise InputError(f"{name}: expected a network; got no function; give one or several")
    low, high = map(float, image_range)
    if not (np.isfinite([low, high]).all() and low < high):
        raise InputError(
            f"{name}: expected image_range=(black, white), black below white; got {image_range}"
        )
    if (low, high) == (-1, 1):
        return tuple(stages)
    *first, last = stages

    def run(params: Params, carry: Any) -> Any:
        return (last(params, carry) - low) * (2 / (high - low)) - 1

    return (*first, run)


def _trace(
    stages: Sequence[Callable[[Params, Any], Any]],
    flat: Mapping[str, np.ndarray],
    space: LatentSpace,
    name: str,
) -> tuple[list[dict[str, int]], Any]:
    """Returns {path: side} of the weights that each stage reads, and the shape of its images."""
    weights = jax.eval_shape(dict, flat)
    carry: Any = jax.ShapeDtypeStruct((1, *space.shape), jnp.float32)
    reads = []
    for number, stage in enumerate(stages):

        def run(named: dict[str, Any], x: Any, stage: Any = stage) -> Any:
            return stage(params_lib.unflatten(named), x)

        try:
            reads.append(tracing.trace_reads(run, weights, carry))
            carry = jax.eval_shape(run, weights, carry)
        except InputError:
            raise
        except Exception as error:
            reason = str(error).strip().partition("\n")[0]
            raise InputError(
                f"{name}: expected stage {number} of {len(stages)} to run on {_told(carry)}, under "
                f"jax.jit; got {type(error).__name__}: {reason}; correct the network, z_dim or the "
                "parameters"
            ) from error
    return reads, carry


def _told(carry: Any) -> str:
    return ", ".join(f"{leaf.dtype}{list(leaf.shape)}" for leaf in jax.tree.leaves(carry))


def _layers(
    flat: Mapping[str, np.ndarray], reads: Sequence[Mapping[str, int]], name: str
) -> tuple[EditableLayer, ...]:
    """Returns a layer for each weight, in the order in which the network reads them."""
    found: list[EditableLayer] = []
    for stage, sides in enumerate(reads):
        for path, side in sides.items():
            array = flat[path]
            known = any(layer.path == path for layer in found)
            if array.ndim < 2 or array.dtype != np.float32 or known:
                continue
            found.append(EditableLayer(path, array.shape, side, stage, original_name=path))
    if not found:
        raise InputError(
            f"{name}: expected weights to edit, float32 arrays with two axes or more that the "
            f"network reads; got none among {', '.join(list(flat)[:8]) or 'no arrays'}; give the "
            "weights as params, not as constants in the function"
        )
    return tuple(found)


def _check_shape(image: Any, name: str) -> None:
    if not isinstance(image, jax.ShapeDtypeStruct):
        raise InputError(
            f"{name}: expected one array of images; got {type(image).__name__}; return the images "
            "alone"
        )
    is_batch = len(image.shape) == 4 and image.shape[0] == 1 and 0 not in image.shape
    if not is_batch or not jnp.issubdtype(image.dtype, jnp.floating):
        raise InputError(
            f"{name}: expected images [batch, height, width, channels] of floats; got "
            f"{_told(image)} for one latent; return floats, and move the axes with "
            "images.transpose(0, 2, 3, 1) if channels come first"
        )
    if image.shape[3] not in channels.MEANINGS and image.shape[1] in channels.MEANINGS:
        raise InputError(
            f"{name}: expected images [batch, height, width, channels]; got {_told(image)}, where "
            "channels seem to come first; return images.transpose(0, 2, 3, 1)"
        )
    channels.require_known(image.shape[3], name)


def _check_images(generator: Generator, params: Params, name: str) -> None:
    """Runs the network on two latents, together and alone, and compares."""
    run = jax.jit(generator.synthesize)
    latents = generator.sample_latents(jax.random.key(0), 2)
    images = [np.asarray(run(params, latents), np.float32) for _ in range(2)]
    alone = np.concatenate([np.asarray(run(params, latents[i : i + 1])) for i in range(2)])
    if not np.isfinite(images[0]).all():
        raise InputError(
            f"{name}: expected finite images; got NaN or infinity; check the parameters"
        )
    spread = max(float(np.abs(images[0]).max()), 1e-6)
    if spread > _WIDEST:
        raise InputError(
            f"{name}: expected images whose black is -1 and white is 1; got values up to "
            f"{spread:.3g}; say what they are with image_range=(black, white), such as (0, 255)"
        )
    if not np.array_equal(images[0], images[1]):
        raise InputError(
            f"{name}: expected the same image for the same latent; got another in the second call; "
            "take randomness out of the network, or fix its key"
        )
    if not np.allclose(images[0], alone, rtol=0, atol=_ROUNDING * spread):
        raise InputError(
            f"{name}: expected an image that depends on its own latent alone; got another image in "
            "a batch than alone; use stored statistics in batch normalisation, draw no random "
            "numbers, and drop nothing out"
        )
