"""Products with the Hessian of E_z d(G_θ(z), G_{θ+δ}(z)) by δ, at δ = 0.

d is a squared norm of features, d(a, b) = ||φ(a) - φ(b)||². Three ways to compute a product:

exact               forward over reverse: the derivative of the gradient along v.
gauss_newton        2 E J'J v with J the Jacobian of the features. At δ = 0 the residuals vanish,
                    so this is the Hessian, not an approximation; it is positive semidefinite to
                    the last bit and needs no second derivatives. The linear map J is made once
                    and kept if it fits the cache.
central_difference  (g(εv) - g(-εv)) / 2ε, the paper's equation 4.

Departures from the official code:
1. The part of the network before the edited layers is computed once, not once per gradient.
2. No gradient is computed through the unshifted images.
3. Any number of latents is allowed; samples of weight zero fill the last microbatch.
4. Several layers can be edited at once.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from navigan_jax import devices
from navigan_jax import params as params_lib
from navigan_jax.array_types import Array, Block, Float, Images, Params
from navigan_jax.generators.base import EditableLayer, Generator

# The smallest stride between the pixels that the distance reads at which the others are left out.
# At smaller strides the windows overlap so much that they cost more than whole images. For config-f
# with a distance at 64 px, an image with its gradient takes 1.61 s instead of 1.87 s at 512 px
# (stride 8) and 2.23 s instead of 2.73 s at 1024 px. In processor time it takes 1.81 s instead of
# 2.03 s at 256 px (stride 4), but 1.66 s instead of 1.43 s at 128 px (stride 2), and there it needs
# 474 MiB instead of 194 MiB. Measured on two cores with
# `python -m benchmarks.stylegan2 --only pixels_gradient --batch 1`.
_LEAST_STRIDE = 4


class Metric(Protocol):
    """A distance that is a squared norm of features; its weights are leaves of the pytree."""

    def features(self, images: Images) -> Any: ...

    def stride(self, side: int) -> int: ...


Deltas = dict[str, Array]


@dataclasses.dataclass(frozen=True)
class Objective:
    """E_z d(G_θ(z), G_{θ+δ}(z)) as a function of the weights' change δ at some layers.

    shared: (θ, metric) on every device. shards: the latents, or, if `starts_at_layers`, the inputs
    of the edited layers.
    """

    generator: Generator
    layers: tuple[EditableLayer, ...]
    shared: tuple[Params, Metric]
    shards: devices.Shards
    starts_at_layers: bool

    @property
    def entries(self) -> int:
        """The number of weights that can change: the length of a vector."""
        return sum(math.prod(layer.shape) for layer in self.layers)


def make_objective(
    generator: Generator,
    params: Params,
    metric: Metric,
    latents: Float[Array | np.ndarray, "samples latent"],
    layers: Sequence[EditableLayer],
    *,
    microbatch: int,
    cache_bytes: int,
) -> Objective:
    """Returns the objective over all the latents z, spread over all devices.

    The input of the edited layers is computed here, once, if it fits `cache_bytes` per device.
    """
    layers = tuple(layers)
    shared = devices.replicate((params_lib.to_device(params), metric))
    shards = devices.shard(latents, microbatch=microbatch)
    objective = Objective(generator, layers, shared, shards, starts_at_layers=False)
    prefix = _prefix(objective)
    if _bytes_per_device(prefix, objective) > cache_bytes:
        return objective
    carries = devices.map_microbatches(prefix, shared, shards)
    return dataclasses.replace(objective, shards=carries, starts_at_layers=True)


def _prefix(objective: Objective) -> Callable[[tuple[Params, Metric], Array], Any]:
    return lambda shared, z: objective.generator.prefix(shared[0], z, objective.layers)


def _bytes_per_device(function: Callable[[Any, Any], Any], objective: Objective) -> int:
    """Returns the size of function(shared, microbatch) over all microbatches of a device."""
    first = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype),
        (objective.shared, objective.shards.batches[0]),
    )
    shapes = jax.tree.leaves(jax.eval_shape(function, *first))
    each = sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in shapes)
    return each * len(objective.shards.batches)


def split(layers: Sequence[EditableLayer], block: Float[Array, "... entries"]) -> Deltas:
    """Returns {path: [..., *shape of the weight]} from vectors that hold all layers in order."""
    deltas, start = {}, 0
    for layer in layers:
        stop = start + math.prod(layer.shape)
        deltas[layer.path] = block[..., start:stop].reshape(*block.shape[:-1], *layer.shape)
        start = stop
    return deltas


def join(layers: Sequence[EditableLayer], deltas: Deltas, axes: int = 0) -> Array:
    """Returns the vectors from the result of `split`; the first `axes` axes are kept."""
    return jnp.concatenate(
        [deltas[layer.path].reshape(*deltas[layer.path].shape[:axes], -1) for layer in layers],
        axis=-1,
    )


def _features_of_change(
    objective: Objective, shared: tuple[Params, Metric], data: Any
) -> Callable[[Deltas], Any]:
    """Returns δ -> φ(G_{θ+δ}(z)) for one microbatch."""
    params, metric = shared
    generator, layers = objective.generator, objective.layers
    carry = data if objective.starts_at_layers else generator.prefix(params, data, layers)

    def features(deltas: Deltas) -> Any:
        changed = params
        for path, delta in deltas.items():
            changed = params_lib.add(changed, path, delta)
        height, width, _ = generator.image_shape
        stride = metric.stride(height) if height == width else 1
        stride = stride if stride >= _LEAST_STRIDE else 1
        return metric.features(generator.suffix(changed, carry, layers, stride=stride))

    return features


def _zero(objective: Objective, params: Params) -> Deltas:
    return {
        layer.path: jnp.zeros_like(params_lib.get(params, layer.path)) for layer in objective.layers
    }


def _weighted_squared_norm(features: Any, weights: Float[Array, "batch"]) -> Array:
    norms = [
        jnp.sum(leaf.reshape(len(weights), -1) ** 2, axis=1) for leaf in jax.tree.leaves(features)
    ]
    return jnp.vdot(sum(norms[1:], norms[0]), weights)


def _distance_of_change(
    objective: Objective, shared: tuple[Params, Metric], data: Any, weights: Array
) -> Callable[[Deltas], Array]:
    """Returns δ -> weighted sum of distances over one microbatch."""
    features = _features_of_change(objective, shared, data)
    original = features(_zero(objective, shared[0]))

    def distance(deltas: Deltas) -> Array:
        difference = jax.tree.map(jnp.subtract, features(deltas), original)
        return _weighted_squared_norm(difference, weights)

    return distance


def _gradient_of_change(
    objective: Objective, shared: tuple[Params, Metric], data: Any, weights: Array
) -> Callable[[Deltas], Deltas]:
    """Returns δ -> gradient of the weighted sum of distances over one microbatch."""
    return jax.grad(_distance_of_change(objective, shared, data, weights))


def gradient(objective: Objective) -> Callable[[Float[Array, "entries"]], Array]:
    """Returns δ -> gradient of E_z d(G_θ(z), G_{θ+δ}(z)), compiled."""

    return _over_all(objective, _gradient_on_batch(objective))


def _gradient_on_batch(objective: Objective) -> Callable[[Any, Any, Array, Array], Array]:
    def on_batch(shared: Any, data: Any, weights: Array, vector: Array) -> Array:
        gradient_of = _gradient_of_change(objective, shared, data, weights)
        return join(objective.layers, gradient_of(split(objective.layers, vector)))

    return on_batch


def exact(objective: Objective, at: Array | None = None) -> Callable[[Block], Block]:
    """Returns block -> H block by forward-over-reverse, at δ = `at` (0 if left out).

    Cost per block: one gradient and its linearisation, and about two gradients per vector.
    """
    apply = _over_all(objective, _exact_on_batch(objective))
    return lambda block: apply((block, at))


def _exact_on_batch(objective: Objective) -> Callable[..., Block]:
    def on_batch(
        shared: Any, data: Any, weights: Array, argument: tuple[Block, Array | None]
    ) -> Block:
        block, point = argument
        gradient_of = _gradient_of_change(objective, shared, data, weights)
        deltas = _zero(objective, shared[0]) if point is None else split(objective.layers, point)
        _, derivative = jax.linearize(gradient_of, deltas)
        products = jax.vmap(derivative)(split(objective.layers, block))
        return join(objective.layers, products, axes=1)

    return on_batch


def gauss_newton(objective: Objective, *, cache_bytes: int) -> Callable[[Block], Block]:
    """Returns block -> 2 E J'J block, J the Jacobian of the features at δ = 0.

    Cost per vector: one forward and one backward pass of the linearised suffix. The linearisation
    of all microbatches is kept if it fits `cache_bytes` per device; otherwise each call makes it
    again.
    """
    linearise = _linearisation(objective)
    if _bytes_per_device(linearise, objective) <= cache_bytes:
        kept = devices.map_microbatches(linearise, objective.shared, objective.shards)
        nothing = devices.replicate(())
        run = devices.sum_over_samples(_apply_kept(objective))
        if _takes_single_rows():
            return lambda block: jnp.concatenate([run(nothing, kept, row[None]) for row in block])
        return lambda block: run(nothing, kept, block)
    return _over_all(objective, _apply_anew(objective))


def _takes_single_rows() -> bool:
    # On a CPU, one vector at a time keeps the activations in the processor's cache, and a kept
    # linearisation means that nothing is computed twice. Other devices take the block in one pass.
    return jax.default_backend() == "cpu"


def _linearisation(objective: Objective) -> Callable[[Any, Any], Any]:
    """Returns (shared, microbatch) -> J."""

    def linearise(shared: Any, data: Any) -> Any:
        features = _features_of_change(objective, shared, data)
        return jax.linearize(features, _zero(objective, shared[0]))[1]

    return linearise


def _apply_kept(objective: Objective) -> Callable[[Any, Any, Array, Block], Block]:
    """Returns (nothing, J, weights, block) -> 2 J' diag(weights) J block."""

    def apply(_: Any, jacobian: Any, weights: Array, block: Block) -> Block:
        tangents = jax.vmap(jacobian)(split(objective.layers, block))
        weighted = jax.tree.map(
            lambda leaf: leaf * (2 * weights).reshape(1, -1, *[1] * (leaf.ndim - 2)), tangents
        )
        example = jax.tree.map(lambda leaf: leaf[0], split(objective.layers, block))
        transpose = jax.linear_transpose(jacobian, example)
        (products,) = jax.vmap(transpose)(weighted)
        return join(objective.layers, products, axes=1)

    return apply


def _apply_anew(objective: Objective) -> Callable[[Any, Any, Array, Block], Block]:
    linearise, apply = _linearisation(objective), _apply_kept(objective)
    return lambda shared, data, weights, block: apply((), linearise(shared, data), weights, block)


def central_difference(objective: Objective, *, epsilon: float) -> Callable[[Block], Block]:
    """Returns block -> (g(εv) - g(-εv)) / 2ε, row by row; the paper's equation 4.

    v is not normalised: the step in the weights is ε‖v‖. Cost per vector: two gradients.
    """
    gradient_of = gradient(objective)

    def product(block: Block) -> Block:
        rows = [
            (gradient_of(epsilon * vector) - gradient_of(-epsilon * vector)) / (2 * epsilon)
            for vector in block
        ]
        return jnp.stack(rows)

    return product


def _over_all(objective: Objective, on_batch: Callable[..., Any]) -> Callable[[Any], Any]:
    run = devices.sum_over_samples(on_batch)
    return lambda argument: run(objective.shared, objective.shards, argument)


@dataclasses.dataclass(frozen=True)
class Needs:
    """Bytes that the products need on each device, without those of the solver.

    shared: weights of generator and distance. inputs: of the edited layers, 0 if not kept.
    jacobian: the linearisation, 0 if not kept. working: memory of the largest program.
    """

    shared: int
    inputs: int
    jacobian: int
    working: int


def measure(
    generator: Generator,
    params: Params,
    metric: Metric,
    latents: Float[Array | np.ndarray, "samples latent"],
    layers: Sequence[EditableLayer],
    *,
    microbatch: int,
    cache_bytes: int,
    kinds: Sequence[str],
    block_size: int,
) -> Needs:
    """Returns the memory for products of those kinds as the compiler reports it; runs nothing.

    kinds: "gauss_newton", "exact", "central_difference".
    Cost: the products' programs are compiled.
    """
    shared = devices.replica_shapes((params, metric))
    shards = devices.shard_shapes(latents, microbatch=microbatch)
    objective = Objective(generator, tuple(layers), shared, shards, starts_at_layers=False)
    weights = sum(
        math.prod(leaf.shape[1:]) * leaf.dtype.itemsize for leaf in jax.tree.leaves(shared)
    )
    inputs = jacobian = working = 0
    prefix = _prefix(objective)
    size = _bytes_per_device(prefix, objective)
    if size <= cache_bytes:
        carries, working = devices.map_microbatch_shapes(prefix, shared, shards)
        objective = dataclasses.replace(objective, shards=carries, starts_at_layers=True)
        inputs = size
    row = jax.ShapeDtypeStruct((objective.entries,), jnp.result_type(float))
    block = jax.ShapeDtypeStruct((block_size, *row.shape), row.dtype)
    data = objective.shared, objective.shards
    if "exact" in kinds:
        program = _exact_on_batch(objective)
        working = max(working, devices.sum_working_bytes(program, *data, (block, None)))
    if "central_difference" in kinds:
        program = _gradient_on_batch(objective)
        working = max(working, devices.sum_working_bytes(program, *data, row))
    if "gauss_newton" in kinds:
        linearise = _linearisation(objective)
        size = _bytes_per_device(linearise, objective)
        if size <= cache_bytes:
            jacobian = size
            kept, more = devices.map_microbatch_shapes(linearise, *data)
            if _takes_single_rows():
                block = jax.ShapeDtypeStruct((1, *row.shape), row.dtype)
            again = devices.sum_working_bytes(_apply_kept(objective), (), kept, block)
            working = max(working, more, again)
        else:
            program = _apply_anew(objective)
            working = max(working, devices.sum_working_bytes(program, *data, block))
    return Needs(weights, inputs, jacobian, working)
