"""Windows of steps on a toy whose numbers are known."""

import jax
import jax.numpy as jnp
import pytest

from navigan_jax.discovery import loop


def step(state):
    return state + 1, {"loss": state, "odd": jnp.where(state == 5, jnp.nan, state % 2)}


@pytest.mark.parametrize(("done", "ends"), [(0, [4, 8, 10]), (3, [4, 8, 10]), (8, [10]), (10, [])])
def test_windows_end_at_multiples_and_at_the_last_step(done, ends):
    found = list(loop.windows(step, jnp.float32(done), done=done, total=10, every=4))
    assert [window.step for window in found] == ends
    assert [float(window.state) for window in found] == ends
    starts = [done, *ends]
    for start, window in zip(starts, found, strict=False):
        assert window.metrics["loss"] == pytest.approx((start + window.step - 1) / 2)
        assert window.is_finite == (not start <= 5 < window.step)


def test_the_host_waits_once_a_window(monkeypatch):
    """Metrics of all its steps are fetched together."""
    fetched = []
    get = jax.device_get
    monkeypatch.setattr(jax, "device_get", lambda tree: fetched.append(len(tree)) or get(tree))
    list(loop.windows(step, jnp.float32(0), done=0, total=7, every=3))
    assert fetched == [3, 3, 1]


def test_training_stalls_once_no_value_of_the_last_ones_is_a_gain():
    history = [0.1, 0.5, 0.501, 0.502]
    assert loop.has_stalled(history, patience=2, least_gain=0.01)
    assert not loop.has_stalled(history, patience=3, least_gain=0.01)
    assert not loop.has_stalled(history, patience=2, least_gain=0.0005)
    assert not loop.has_stalled(history, patience=0, least_gain=1.0)
    assert not loop.has_stalled(history[:2], patience=2, least_gain=1.0)
