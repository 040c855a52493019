"""The loss by hand, and what it must not depend on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import testing
from navigan_jax.discovery.loss import reconstruction_loss

WEIGHTS = {"label_weight": 0.7, "shift_weight": 0.3}
LOGITS = jnp.array([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 3.0], [5.0, 0.0, 0.0]])
PREDICTED, SHIFTS = jnp.array([1.0, -2.0, 0.0, 4.0]), jnp.array([1.5, -2.0, 1.0, -4.0])
INDICES = jnp.array([1, 0, 2, 1])  # the last one is taken for another direction


def test_loss_is_that_by_hand():
    """−log of the softmax at the direction, mean |t̂ − t|, and the share that is named rightly."""
    loss, metrics = reconstruction_loss(LOGITS, PREDICTED, INDICES, SHIFTS, **WEIGHTS)
    labels = [
        np.log(np.exp(2) + 2) - 2,
        np.log(np.e + 2) - 1,
        np.log(np.exp(3) + 2) - 3,
        np.log(np.exp(5) + 2),
    ]
    error = (0.5 + 0 + 1 + 8) / 4
    expected = {
        "label_loss": 0.7 * np.mean(labels),
        "shift_loss": 0.3 * error,
        "shift_error": error,
        "accuracy": 0.75,
        "loss": 0.7 * np.mean(labels) + 0.3 * error,
    }
    assert metrics.keys() == expected.keys()
    for name, value in expected.items():
        testing.assert_close(metrics[name], value, 1e-6, name)
    assert loss == metrics["loss"]


def test_loss_does_not_depend_on_a_constant_of_the_logits():
    """Large logits do not overflow; a constant added to one logit changes the loss."""

    def loss(logits):
        return reconstruction_loss(logits, PREDICTED, INDICES, SHIFTS, **WEIGHTS)[0]

    testing.assert_close(loss(LOGITS + 1e4), loss(LOGITS), 1e-3)
    assert abs(loss(LOGITS.at[:, 0].add(1)) - loss(LOGITS)) > 0.1


def test_gradient_of_the_logits_is_probability_less_one_hot():
    """And that of the shift the sign of its error; both over the batch."""

    def loss(logits, predicted):
        return reconstruction_loss(logits, predicted, INDICES, SHIFTS, **WEIGHTS)[0]

    logits, predicted = jax.grad(loss, (0, 1))(LOGITS, PREDICTED + 0.25)
    expected = 0.7 * (jax.nn.softmax(LOGITS) - jax.nn.one_hot(INDICES, 3)) / 4
    testing.assert_close(logits, expected, 1e-6)
    testing.assert_close(predicted, 0.3 * np.array([-1, 1, -1, 1]) / 4, 1e-6)


def test_a_prediction_of_another_shape_is_refused():
    """Broadcasting against the shifts would hide the mistake."""
    with pytest.raises(AssertionError, match="shape"):
        reconstruction_loss(LOGITS, PREDICTED[:, None], INDICES, SHIFTS, **WEIGHTS)
