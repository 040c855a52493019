"""The training loss: predict the direction and the shift."""

import chex
import jax
import jax.numpy as jnp

from navigan_jax.array_types import Array, Float, Int


def reconstruction_loss(
    logits: Float[Array, "batch directions"],
    predicted: Float[Array, "batch"],
    indices: Int[Array, "batch"],
    shifts: Float[Array, "batch"],
    *,
    label_weight: float,
    shift_weight: float,
) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
    """Returns label_weight · CE(logits, k) + shift_weight · mean |t̂ − t|, and the metrics.

    predicted: t̂; shifts: t, both in units of the norm of the weights' change.
    The metrics are means over the batch: `loss`, its weighted parts `label_loss` and `shift_loss`,
    `accuracy` (share of correctly predicted directions) and `shift_error` (mean |t̂ − t|).
    Source: Cherepkov et al. 2021, section 3.2.
    """
    # A prediction [batch, 1] would broadcast against the shifts, and R would learn nothing.
    chex.assert_equal_shape([predicted, shifts, indices])
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), indices[:, None], axis=1)
    label_loss = -label_weight * jnp.mean(chosen)
    shift_error = jnp.mean(jnp.abs(predicted - shifts))
    shift_loss = shift_weight * shift_error
    loss = label_loss + shift_loss
    accuracy = jnp.mean(jnp.argmax(logits, axis=1) == indices)
    metrics = {
        "loss": loss,
        "label_loss": label_loss,
        "shift_loss": shift_loss,
        "accuracy": accuracy,
        "shift_error": shift_error,
    }
    return loss, metrics
