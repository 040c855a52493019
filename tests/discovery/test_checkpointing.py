"""Checkpoints come back bit by bit, or say in one message why not."""

import collections
import gc
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax.discovery.checkpointing import Checkpoints
from navigan_jax.errors import InputError

Moments = collections.namedtuple("Moments", ["count", "mean"])


def make_state(seed=0, width=3):
    """Every kind of node and type of number that a training state has."""
    random = np.random.RandomState(seed)
    return {
        "matrix": random.standard_normal((2, width)).astype(np.float32),
        "nothing": {},
        "optimiser": (
            Moments(np.array(seed, np.int32), {"a/b": np.full(4, 1e-30, np.float32)}),
            (),
        ),
        "key": np.array([1, 2**32 - 1], np.uint32),
    }


def assert_same_bits(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype and x.tobytes() == y.tobytes()


def test_latest_and_best_are_kept_and_come_back_bit_by_bit(tmp_path):
    """The best is the first of equal ones, although it was not among the latest when it was."""
    like = jax.tree.map(jnp.zeros_like, make_state())
    with Checkpoints(tmp_path, keep=2) as saved:
        assert saved.steps == ()
        for step, accuracy in ((10, 0.2), (20, 0.9), (30, 0.3), (40, 0.9), (50, 0.4)):
            saved.save(step, make_state(step), {"accuracy": accuracy, "history": [accuracy]})
        saved.save(50, make_state(0), {"accuracy": 1.0})  # made again by a resumed run
    (tmp_path / "60.orbax-checkpoint-tmp" / "state").mkdir(parents=True)  # as a kill leaves it
    (tmp_path / "30.removed" / "state").mkdir(parents=True)
    with Checkpoints(tmp_path, keep=2) as saved:
        assert saved.steps == (20, 40, 50)
        assert saved.best_step() == 20
        for step in saved.steps:
            state, record = saved.restore(step, like)
            assert_same_bits(state, make_state(step))
        assert record == {"accuracy": 0.4, "history": [0.4]}
    assert {path.name for path in tmp_path.iterdir()} == {"20", "40", "50"}


@pytest.mark.parametrize("seed", range(3))
def test_what_is_kept_does_not_depend_on_where_a_run_was_stopped(tmp_path, seed):
    """Three accuracies at random, so that many are equal; each save may be the last of a run."""
    draws = np.random.RandomState(seed)
    accuracies = draws.randint(3, size=12).tolist()
    wanted = {str(accuracies.index(max(accuracies))), "10", "11"}
    steps = list(range(12))
    while steps:
        with Checkpoints(tmp_path, keep=2) as saved:
            for _ in range(min(draws.randint(1, 5), len(steps))):
                step = steps.pop(0)
                saved.save(step, {"a": np.ones(1)}, {"accuracy": accuracies[step]})
            if draws.rand() < 0.5:  # a kill: nothing is removed any more
                saved._manager.wait_until_finished()
                saved._remove_others = lambda: None
    with Checkpoints(tmp_path, keep=2) as saved:
        assert saved.best_step() == accuracies.index(max(accuracies))
    assert {path.name for path in tmp_path.iterdir()} == wanted


def test_a_record_is_that_of_the_moment_it_was_saved(tmp_path):
    """Though it is written while training goes on, and its history grows."""
    history = [0.5]
    with Checkpoints(tmp_path, keep=1) as saved:
        saved.save(1, make_state(), {"accuracy": 0.5, "history": history})
        history.append(0.6)
    with Checkpoints(tmp_path, keep=1) as saved:
        assert saved.record(1)["history"] == [0.5]


def test_a_state_of_another_shape_is_named(tmp_path):
    with Checkpoints(tmp_path, keep=1) as saved:
        saved.save(1, make_state(), {"accuracy": 0.0})
    with Checkpoints(tmp_path, keep=1) as saved:
        pattern = (
            r"1: expected the training state .*\n  matrix: expected shape \(2, 4\), got \(2, 3"
        )
        with pytest.raises(InputError, match=pattern):
            saved.restore(1, make_state(width=4))
        with pytest.raises(InputError, match=r"missing more \(1,\)"):
            saved.restore(1, make_state() | {"more": np.zeros(1)})


# Of several reads that fail together Orbax leaves some behind, which complain when collected.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("broken", ["state/manifest.ocdbt", "record/metadata"])
def test_a_damaged_checkpoint_is_named(tmp_path, broken):
    with Checkpoints(tmp_path, keep=1) as saved:
        saved.save(1, make_state(), {"accuracy": 0.0})
    path = tmp_path / "1" / broken
    assert path.exists()
    path.write_bytes(b"\x00")
    complaint = r"1.*: expected .*checkpoint; got .*; delete "
    with Checkpoints(tmp_path, keep=1) as saved, pytest.raises(InputError, match=complaint):
        saved.restore(1, make_state())
    gc.collect()


def test_a_disk_without_room_is_one_message_and_harms_no_checkpoint(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    with Checkpoints(tmp_path, keep=1) as saved:
        saved.save(1, make_state(), {"accuracy": 0.5})
        saved.wait()
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100_000))
        with pytest.raises(
            InputError, match=r"room for a checkpoint; got 0 MB to write and 0 MB fr"
        ):
            saved.save(2, make_state(), {"accuracy": 0.6})
    with Checkpoints(tmp_path, keep=1) as saved:
        assert saved.steps == (1,)


def test_what_orbax_says_of_a_full_disk_is_one_message(tmp_path, monkeypatch):
    """Its text is that of a write to a full disk; main would take it for a lack of memory."""
    text = "RESOURCE_EXHAUSTED: Error writing \"a\": Failed to write [os_error_code='28']"

    def refuse():
        raise ValueError(text)

    with Checkpoints(tmp_path, keep=1) as saved, monkeypatch.context() as patch:
        patch.setattr(saved._manager, "wait_until_finished", refuse)
        with pytest.raises(InputError, match="got No space left on device; free some space, or"):
            saved.wait()
        patch.setattr(saved._manager, "wait_until_finished", lambda: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            saved.wait()


def test_a_folder_that_cannot_be_is_one_message(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="a part of the path is a file: choose another folder"):
        Checkpoints(tmp_path / "file" / "checkpoints", keep=1)
