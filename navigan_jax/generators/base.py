"""The generator interface: a frozen value with pure functions of (params, latent).

A network is a chain of stages from z to the image: first the stages of the mapping, if there is
one, then those of the synthesis. An editable layer belongs to the stage that reads its weight.
Before that stage the network is cut into a prefix, which no edit of the layer changes, and a
suffix. The original and the edited image, all shifts and all derivatives share one prefix.
"""

import dataclasses
import difflib
import functools
import types
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Float, Images, Key, Params
from navigan_jax.errors import InputError
from navigan_jax.generators.latent_space import LatentSpace
from navigan_jax.nn.layers import PRECISIONS, Change, Factors, Unfolding


@dataclasses.dataclass(frozen=True)
class EditableLayer:
    """A weight that can be edited.

    path: in the parameter tree, e.g. "conv1/kernel".
    shape: of the weight; resolution: side of the layer's output in pixels.
    stage: the first stage that reads the weight.
    original_name: the authors' name of the layer or, ending in ".weight", of the weight.
    aliases: other names in use. number: the layer's index in NaviGAN's numbering.
    unfolding: set if the layer is a transposed convolution of the result of `Generator.prefix`. The
      layer then also takes the unfolded result, with the weight's phases instead of the weight.
    """

    path: str
    shape: tuple[int, ...]
    resolution: int
    stage: int
    original_name: str
    aliases: tuple[str, ...] = ()
    number: int | None = None
    unfolding: Unfolding | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All names by which a user may choose this layer."""
        return (
            self.path,
            self.path.removesuffix("/kernel"),
            self.original_name,
            self.original_name.removesuffix(".weight"),
            *self.aliases,
            *(() if self.number is None else (str(self.number),)),
        )


@dataclasses.dataclass(frozen=True)
class Generator:
    """An image generator without its parameters; hashable, so it can be static under `jit`.

    space: of the latents. resolution: height of the image in pixels, and its width too unless
    `width` is set.
    Images are NHWC, nominally in [-1, 1]. The network's method `run(carry, start, stop)` runs
    stages: stage 0 reads z, stage `mapping_stages` reads the latent, and the last stage returns the
    image. The network's field `by_matmul` names the submodules that are computed as matrix
    products; its field `stride`, if it has one, is the distance between the wanted pixels.
    """

    architecture: str
    network: nn.Module
    space: LatentSpace
    resolution: int
    image_channels: int
    mapping_stages: int
    stages: int
    layers: tuple[EditableLayer, ...]
    width: int | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return self.resolution, self.width or self.resolution, self.image_channels

    @property
    def size_text(self) -> str:
        """The size of the images in words: "64 px", or "64x128 px" if they are not square."""
        height, width, _ = self.image_shape
        return f"{height} px" if height == width else f"{height}x{width} px"

    @property
    def weights(self) -> Params:
        """Shapes and dtypes of the parameters; traced once for equal generators. Read only."""
        return _weights(self, is_64_bit=bool(jax.config.values["jax_enable_x64"]))

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of the input of `synthesize` for one sample: of w_plus, or of z."""
        return _latent_shape(self) if self.mapping_stages else self.space.shape

    def init(self, key: Key) -> Params:
        """Returns fresh random parameters."""
        z = jnp.zeros((1, *self.space.shape))
        return self.network.init(key, z, 0, self.stages, method="run")["params"]

    def sample_latents(self, key: Key, count: int) -> Float[Array, "batch *latent"]:
        """Returns `count` random latents of the space."""
        return self.space.sample(key, count)

    def map_latent(self, params: Params, z: Float[Array, "batch ..."]) -> Any:
        """Returns the latent for `synthesize`: w_plus [batch, rows, w], or z without a mapping.

        z: or w_plus, which is returned unchanged.
        """
        return self._run(params, z, self._start(z), self.mapping_stages)

    def synthesize(self, params: Params, latent: Any, noise_key: Key | None = None) -> Images:
        """Returns images in [-1, 1].

        noise_key: draws fresh noise instead of the constant noise, if the network has noise.
        """
        rngs = {} if noise_key is None else {"noise": noise_key}
        return self._run(params, latent, self.mapping_stages, self.stages, rngs=rngs)

    def run_stage(self, params: Params, carry: Any, stage: int) -> Any:
        """Returns the output of one stage: the input of the next stage, or the image."""
        return self._run(params, carry, stage, stage + 1)

    def prefix(
        self,
        params: Params,
        z: Float[Array, "batch ..."],
        layers: Sequence[EditableLayer],
    ) -> Any:
        """Returns the input of the first of the `layers`; it does not depend on their weights.

        z: or w_plus [batch, rows, w], which enters after the mapping.
        Raises: InputError for w_plus and a layer of the mapping.
        """
        start, stop = self._start(z), _first_stage(layers)
        if stop < start:
            before = [layer.path for layer in layers if layer.stage < start]
            raise InputError(
                f"latents: expected z, because the mapping comes before w; got w_plus and layers "
                f"of the mapping ({', '.join(before)}); give z and mix no styles, or choose layers "
                "of the synthesis"
            )
        return self._run(params, z, start, stop)

    def suffix(
        self,
        params: Params,
        carry: Any,
        layers: Sequence[EditableLayer],
        *,
        stride: int = 1,
    ) -> Images:
        """Returns the images from the result of `prefix`; `layers` are computed `by_matmul`.

        stride: only every stride-th row and column is returned, starting with the first. It must
          divide the resolution. A network with a field `stride` computes no other pixels.
        """
        if self.resolution % stride or (self.width or self.resolution) % stride:
            raise ValueError(f"stride: expected a divisor of {self.resolution}; got {stride}")
        start = _first_stage(layers)
        fields: dict[str, Any] = {
            "by_matmul": tuple(layer.path.rpartition("/")[0] for layer in layers)
        }
        if hasattr(self.network, "stride"):
            fields["stride"] = stride
            return self._run(params, carry, start, self.stages, fields)
        images = self._run(params, carry, start, self.stages, fields)
        return images[:, ::stride, ::stride]

    def suffix_of_changes(
        self,
        params: Params,
        carry: Any,
        layers: Sequence[EditableLayer],
        changes: Mapping[str, Change],
    ) -> Images:
        """Returns the images from the result of `prefix`, with each sample's own weights.

        changes: {layer path: change}, added to that weight; an empty one gives the original images.
        The part that does not depend on the changes is always computed in the same way, so that
        under one `jit` the compiler shares it between calls.
        Raises: ValueError if a layer outside `layers` is changed, or the shapes do not fit.
        """
        _require_fitting(layers, changes)
        start, collections = _first_stage(layers), {"changes": params_lib.unflatten(changes)}
        return self._run(params, carry, start, self.stages, collections=collections)

    def find_layers(self, names: Sequence[str]) -> tuple[EditableLayer, ...]:
        """Returns the layers with those names, in the network's order.

        Raises: InputError for an unknown or repeated name; the message lists the layers.
        """
        found = [self._find_layer(name) for name in names]
        if not found or len(set(found)) != len(found):
            raise InputError(
                f"layer: expected one or several different layers; got {list(names)}; "
                f"allowed: {self._names()}"
            )
        return tuple(layer for layer in self.layers if layer in found)

    def _start(self, latent: Float[Array, "batch ..."]) -> int:
        """Returns the stage that reads the latent: stage 0 reads z, not w_plus."""
        return 0 if latent.ndim == 1 + len(self.space.shape) else self.mapping_stages

    def _find_layer(self, name: str) -> EditableLayer:
        for layer in self.layers:
            if name in layer.names:
                return layer
        known = [known for layer in self.layers for known in layer.names]
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(
            f"layer: expected a layer of this {self.architecture}; got {name!r}{hint}; "
            f"allowed: {self._names()}; set config.layer"
        )

    def _names(self) -> str:
        return ", ".join(f"{layer.path} ({layer.original_name})" for layer in self.layers)

    def _run(
        self,
        params: Params,
        carry: Any,
        start: int,
        stop: int,
        fields: Mapping[str, Any] = types.MappingProxyType({}),
        rngs: dict[str, Key] | None = None,
        collections: Mapping[str, Any] = types.MappingProxyType({}),
    ) -> Any:
        if start == stop:
            return carry
        variables = {"params": params, **collections}
        network = self.network.clone(**fields)
        return network.apply(variables, carry, start, stop, method="run", rngs=rngs)


# Tracing a large network takes a second, and every file that is read asks for its shapes.
@functools.lru_cache(maxsize=64)
def _weights(generator: Generator, *, is_64_bit: bool) -> Params:
    return jax.eval_shape(generator.init, jax.random.key(0))


@functools.lru_cache(maxsize=64)
def _latent_shape(generator: Generator) -> tuple[int, ...]:
    z = jax.ShapeDtypeStruct((1, *generator.space.shape), jnp.float32)
    return jax.eval_shape(generator.map_latent, generator.weights, z).shape[1:]


def _first_stage(layers: Sequence[EditableLayer]) -> int:
    return min(layer.stage for layer in layers)


def require_precision(architecture: str, precision: str) -> None:
    """Checks the precision of the features between stages. Raises: InputError if unknown."""
    if precision not in PRECISIONS:
        raise InputError(
            f"{architecture}: precision: expected one of {', '.join(PRECISIONS)}; got "
            f"{precision!r}; correct it where it was set"
        )


def mix_latents(
    first: Float[Array, "batch rows w"], second: Float[Array, "batch rows w"], row: int
) -> Float[Array, "batch rows w"]:
    """Returns two w_plus mixed: `first` in the rows before `row`, `second` in all others.

    Source: Karras et al. 2019, section 3.1 (style mixing).
    """
    return jnp.concatenate([first[:, :row], second[:, row:]], axis=1)


def _require_fitting(layers: Sequence[EditableLayer], changes: Mapping[str, Change]) -> None:
    known = {layer.path: layer.shape for layer in layers}
    for path, change in changes.items():
        if isinstance(change, Factors):
            got = (*change.left.shape[:-1], change.right.shape[-1])
        else:
            got = change.shape[1:]
        if known.get(path) != got:
            raise ValueError(f"changes: {path!r} has shape {got}; layers: {known}")
