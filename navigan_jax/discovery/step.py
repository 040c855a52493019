"""One training step: draws latents, directions and shifts, renders image pairs, updates weights.

Departures from the official program:
1. Both images of a pair share the layers before the changed weights, and the product with the
   unchanged weights. No gradient goes through the unchanged image.
2. The draws of step n depend on the seed and n alone, so a resumed run draws the same numbers.
3. On several devices, each draws the whole batch and takes its share; gradients are averaged. The
   step equals that of one device, up to rounding and batch normalisation (see `reconstructor`).
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import optax
from jax import lax

from navigan_jax import devices
from navigan_jax.array_types import Array, Float, Images, Int, Key, Params
from navigan_jax.discovery.loss import reconstruction_loss
from navigan_jax.discovery.reconstructor import Prediction, Reconstructor, predict
from navigan_jax.discovery.sampling import sample_shifts
from navigan_jax.errors import InputError
from navigan_jax.generators.base import EditableLayer, Generator
from navigan_jax.nn.layers import Change, dense_change
from navigan_jax.subspaces.base import LATENT

SPACES = ("z", "w")

# After the changed weights a generator is linear, apart from these operations. Their results are
# small: masks of one byte a number, and the image.
_KEPT = (lax.eq_p, lax.ge_p, lax.gt_p, lax.le_p, lax.lt_p, lax.ne_p, lax.tanh_p)

Metrics = dict[str, Float[Array, ""]]


class Directions(Protocol):
    """Directions in training: a pytree whose leaves, such as a basis, are not trained."""

    def changes(
        self, parameters: Any, indices: Int[Array, "batch"], shifts: Float[Array, "batch"]
    ) -> Mapping[str, Change]:
        """Returns t_b ξ_{k_b}: {layer path: changes by sample}, or {LATENT: ...} for a latent."""


@dataclasses.dataclass(frozen=True)
class Recipe:
    """The hyperparameters of a step; hashable.

    batch: samples per step, over all devices. directions: K. shift_scale, min_shift, distribution:
    as in `sample_shifts`. label_weight, shift_weight: as in `reconstruction_loss`.
    directions_rate, reconstructor_rate: learning rates of the two Adams. microbatch: pairs that a
    device renders at once; None: all. A microbatch needs less memory, and computes the layers
    before the changed weights twice.
    """

    batch: int
    directions: int
    shift_scale: float
    min_shift: float
    distribution: str = "uniform"
    label_weight: float = 1.0
    shift_weight: float = 0.25
    directions_rate: float = 1e-4
    reconstructor_rate: float = 1e-4
    microbatch: int | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that changes in training, and the run's key.

    step: number of steps done. key: data of the run's key. directions: parameters of the direction
    matrix. reconstructor: its "params" and "batch_stats". directions_optimizer,
    reconstructor_optimizer: states of the two Adams.
    """

    step: Int[Array, ""]
    key: Array
    directions: Any
    reconstructor: Any
    directions_optimizer: Any
    reconstructor_optimizer: Any


def init_state(
    key: Key, recipe: Recipe, directions: Any, reconstructor: Mapping[str, Any]
) -> TrainState:
    """Returns the state before the first step, on one device; `devices.replicate` copies it to all.

    key: key of all draws of training. directions: initial parameters of the direction matrix.
    reconstructor: its initial variables.
    """
    matrix_adam, reconstructor_adam = _optimizers(recipe)
    return TrainState(
        step=jnp.int32(0),
        key=jax.random.key_data(key),
        directions=directions,
        reconstructor=dict(reconstructor),
        directions_optimizer=matrix_adam.init(directions),
        reconstructor_optimizer=reconstructor_adam.init(reconstructor["params"]),
    )


def _optimizers(
    recipe: Recipe,
) -> tuple[optax.GradientTransformation, optax.GradientTransformation]:
    rates = recipe.directions_rate, recipe.reconstructor_rate
    first, second = (optax.adam(rate, b1=0.9, b2=0.999, eps=1e-8) for rate in rates)
    return first, second


def draw_batch(
    key: Key, generator: Generator, recipe: Recipe
) -> tuple[Array, Int[Array, "batch"], Float[Array, "batch"]]:
    """Returns the latents z, direction indices and shifts of a whole batch."""
    key_z, key_shift = jax.random.split(key)
    indices, shifts = sample_shifts(
        key_shift,
        recipe.batch,
        recipe.directions,
        shift_scale=recipe.shift_scale,
        min_shift=recipe.min_shift,
        distribution=recipe.distribution,
    )
    return generator.sample_latents(key_z, recipe.batch), indices, shifts


def render_pairs(
    generator: Generator,
    params: Params,
    target: Sequence[EditableLayer] | str,
    changes: Mapping[str, Change],
    z: Float[Array, "batch latent"],
) -> tuple[Images, Images]:
    """Returns the unchanged images of z, and the images with each sample's own change.

    target: the changed layers, or the changed latent, "z" or "w".
    Raises: InputError for a latent that this generator does not have.
    """
    if isinstance(target, str):
        return _render_moved_latents(generator, params, target, dense_change(changes[LATENT]), z)
    carry = generator.prefix(params, z, target)
    original = generator.suffix_of_changes(params, carry, target, {})
    return original, generator.suffix_of_changes(params, carry, target, changes)


def _render_moved_latents(
    generator: Generator, params: Params, space: str, changes: Array, z: Array
) -> tuple[Images, Images]:
    if space not in SPACES or (space == "w" and not generator.mapping_stages):
        allowed = SPACES if generator.mapping_stages else SPACES[:1]
        raise InputError(
            f"latent space: expected one of this {generator.architecture}; got {space!r}; "
            f"allowed: {', '.join(allowed)}"
        )
    latent = generator.map_latent(params, z)
    if space == "w":
        moved = latent + changes[:, None]  # all rows alike
    else:
        spare = z.shape[1] - changes.shape[1]  # entries of a label, which stay
        moved = generator.map_latent(params, z + jnp.pad(changes, ((0, 0), (0, spare))))
    return generator.synthesize(params, latent), generator.synthesize(params, moved)


def _in_microbatches(
    render: Callable[..., Any], size: int | None, data: tuple[Array, ...]
) -> tuple[Images, Images]:
    """Returns render(*data), computed in microbatches of `size` samples.

    For the derivative only the results of `_KEPT` are stored. The inputs of the changed weights are
    recomputed; nothing after the changed weights is.
    """
    count = len(data[0])
    if size is None or size >= count:
        return render(*data)
    if count % size:
        raise InputError(
            f"microbatch: expected a divisor of the {count} samples of a device; got {size}; set "
            "it with --config.microbatch=N"
        )
    parts = jax.tree.map(lambda leaf: leaf.reshape(-1, size, *leaf.shape[1:]), data)
    frugal = jax.checkpoint(render, policy=lambda primitive, *_, **__: primitive in _KEPT)
    images = lax.map(lambda part: frugal(*part), parts)
    return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), images)


@dataclasses.dataclass(frozen=True)
class Program:
    """The static parts of a step: everything known before compilation."""

    generator: Generator
    target: tuple[EditableLayer, ...] | str
    reconstructor: Reconstructor
    recipe: Recipe

    def step(self, shared: tuple[Params, Directions], state: TrainState) -> tuple[TrainState, Any]:
        """Returns the next state and the metrics; every device runs this on its share."""
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        batch = devices.share_of_device(draw_batch(key, self.generator, self.recipe))
        trained = state.directions, state.reconstructor["params"]
        gradient_of = jax.value_and_grad(self.loss, has_aux=True)
        (_, (metrics, statistics)), gradients = gradient_of(trained, shared, state, batch)
        metrics, statistics, gradients = devices.mean_over_devices((metrics, statistics, gradients))
        return self.updated(state, gradients, statistics), metrics

    def forward(
        self,
        trained: tuple[Any, Any],
        shared: tuple[Params, Directions],
        state: TrainState,
        batch: tuple[Array, Array, Array],
    ) -> tuple[Prediction, Any]:
        """Returns the reconstructor's prediction for the pairs, and its running statistics.

        trained: parameters of the matrix and of the reconstructor. shared: θ and the directions.
        batch: z, indices and shifts.
        """
        (params, directions), (matrix, weights) = shared, trained

        def render(z: Array, indices: Array, shifts: Array) -> tuple[Images, Images]:
            changes = directions.changes(matrix, indices, shifts)
            return render_pairs(self.generator, params, self.target, changes, z)

        original, shifted = _in_microbatches(render, self.recipe.microbatch, batch)
        variables = {"params": weights, "batch_stats": state.reconstructor["batch_stats"]}
        return predict(self.reconstructor, variables, original, shifted, train=True)

    def loss(
        self,
        trained: tuple[Any, Any],
        shared: tuple[Params, Directions],
        state: TrainState,
        batch: tuple[Array, Array, Array],
    ) -> tuple[Array, tuple[Metrics, Any]]:
        """Returns the loss and (metrics, running statistics); arguments as for `forward`."""
        (logits, predicted), statistics = self.forward(trained, shared, state, batch)
        loss, metrics = reconstruction_loss(
            logits,
            predicted,
            *batch[1:],
            label_weight=self.recipe.label_weight,
            shift_weight=self.recipe.shift_weight,
        )
        return loss, (metrics, statistics)

    def updated(self, state: TrainState, gradients: tuple[Any, Any], statistics: Any) -> TrainState:
        """Returns the state after a step of both optimisers."""
        matrix_adam, reconstructor_adam = _optimizers(self.recipe)
        changes, matrix_state = matrix_adam.update(gradients[0], state.directions_optimizer)
        weights = state.reconstructor["params"]
        more, reconstructor_state = reconstructor_adam.update(
            gradients[1], state.reconstructor_optimizer
        )
        return dataclasses.replace(
            state,
            step=state.step + 1,
            directions=optax.apply_updates(state.directions, changes),
            reconstructor={
                "params": optax.apply_updates(weights, more),
                "batch_stats": statistics,
            },
            directions_optimizer=matrix_state,
            reconstructor_optimizer=reconstructor_state,
        )


def make_step(
    generator: Generator,
    params: Params,
    target: Sequence[EditableLayer] | str,
    directions: Directions,
    reconstructor: Reconstructor,
    recipe: Recipe,
) -> Callable[[TrainState], tuple[TrainState, Metrics]]:
    """Returns state -> (state, metrics), compiled once; the state is replicated and donated.

    target: the layers that the directions change, or "z" or "w". Metrics are means over the batch,
    on the first device. A call returns at once; reading the metrics waits for the step.
    Raises: InputError if the batch is no multiple of the number of devices.
    """
    count = jax.device_count()
    if recipe.batch % count:
        raise InputError(
            f"batch: expected a multiple of the {count} devices; got {recipe.batch}; set "
            f"config.batch={-(-recipe.batch // count) * count}"
        )
    target = target if isinstance(target, str) else tuple(target)
    program = Program(generator, target, reconstructor, recipe)
    run = devices.map_replicas(program.step)
    shared = devices.replicate((params, directions))
    return lambda state: run(shared, state)
