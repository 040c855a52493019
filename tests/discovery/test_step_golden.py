"""Five training steps of the official program, in double precision and in single.

In single precision each step starts from the state that double precision has reached. A ResNet has
so many units that in nearly every step rounding turns one on or off, which changes gradients by up
to 5e-3; Adam carries that on, so several steps would tell of the processor's order of sums.
Biases before a batch normalisation have no effect, so Adam makes noise of them; the index names
them, and the running means that follow them.
"""

import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.discovery.matrix import DirectionMatrix
from navigan_jax.discovery.reconstructor import make_reconstructor
from navigan_jax.discovery.step import Program, Recipe, init_state
from navigan_jax.generators.files import make_generator
from navigan_jax.subspaces.base import Latent, fixed_basis
from navigan_jax.subspaces.svd import singular_values
from tests.tools.converting import read_stylegan2
from tools.convert_weights.networks.resnet import path_of
from tools.convert_weights.readers.torch_file import read_torch

PROGRAM = "yandex-research/navigan: trainer.Trainer.train"
TRAINERS = testing.golden_names(PROGRAM)

pytestmark = pytest.mark.golden(PROGRAM)

LENET_LAYERS = {
    "convnet": ("conv0", "bn0", None, None, "conv1", "bn1", None, None, "conv2", "bn2"),
    "fc_logits": ("label_hidden", "label_bn", None, "label_head"),
    "fc_shift": ("shift_hidden", "shift_bn", None, "shift_head"),
}
HEADS = {"type_estimator": "label_head", "shift_estimator": "shift_head"}
NORM_LEAVES = {
    "weight": "params/{}/scale",
    "bias": "params/{}/bias",
    "running_mean": "batch_stats/{}/mean",
    "running_var": "batch_stats/{}/var",
}


def our_path(name):
    """Where a tensor of the official reconstructor lies in our variables; None for the unused."""
    if name.endswith("num_batches_tracked") or name.startswith("features_extractor.fc."):
        return None
    if name.startswith("features_extractor."):
        return path_of(name.removeprefix("features_extractor."))
    part, *index, leaf = name.split(".")
    layer = LENET_LAYERS[part][int(index[0])] if index else HEADS[part]
    if "bn" in layer:
        return NORM_LEAVES[leaf].format(layer)
    return f"params/{layer}/{'kernel' if leaf == 'weight' else leaf}"


def to_ours(array):
    """OIHW to HWIO and [out, in] to [in, out]."""
    return {4: lambda x: x.transpose(2, 3, 1, 0), 2: lambda x: x.T}.get(array.ndim, np.asarray)(
        array
    )


def to_theirs(array):
    array = np.asarray(array)
    return {4: lambda x: x.transpose(3, 2, 0, 1), 2: lambda x: x.T}.get(array.ndim, np.asarray)(
        array
    )


class Telling(Program):
    """A program that hands on its predictions next to the statistics."""

    def forward(self, *arguments):
        prediction, statistics = super().forward(*arguments)
        return prediction, (statistics, prediction)


class Trainer:
    """A case, what it starts from, and the program that is to repeat it."""

    def __init__(self, name):
        self.case = testing.golden_case(name)
        self.info = self.case.info["architecture"]
        self.data = self.case.arrays("data")
        config, params, _ = read_stylegan2(self.case.path("generator"))
        self.generator = make_generator("stylegan2", config)
        self.params = params_lib.to_device(params)
        self.target = "w" if self.info["shift_in_w"] else "z"
        if self.info["layer_ix"] is not None:
            self.target = self.generator.find_layers([f"convs.{self.info['layer_ix']}"])
        self.names = [str(name) for name in self.data["init_digest/names"]]
        self.matrix, self.parameters = self._directions()
        network = {"lenet": "lenet", "resnet": "resnet18"}[self.info["predictor"]]
        adam = self.info["adam"]
        assert (adam["betas"], adam["eps"]) == ([0.9, 0.999], 1e-8)
        self.program = Telling(
            self.generator,
            self.target,
            make_reconstructor(
                network, directions=self.info["logits"], side=self.info["predictor_downsample"]
            ),
            Recipe(
                batch=self.info["batch_size"],
                directions=self.info["directions_count"],
                shift_scale=1.0,
                min_shift=0.0,
                label_weight=self.info["label_weight"],
                shift_weight=self.info["shift_weight"],
                directions_rate=self.info["deformator_lr"],
                reconstructor_rate=self.info["predictor_lr"],
            ),
        )

    def _directions(self):
        """The matrix, and its parameters in the order in which the case strings them together."""
        kind, count = self.info["deformator"], self.info["directions_count"]
        init = {
            name.partition("/")[2]: array
            for name, array in self.data.items()
            if name.startswith("deformator_init/")
        }
        if kind in ("ortho", "proj"):
            subspace = Latent(self.info["logits"])
            if kind == "ortho":
                parameters = {"skew_half": init["log_mat_half"]}
                return DirectionMatrix(subspace, "orthonormal", count), parameters
            parameters = {"matrix": init["linear.weight"].T, "bias": init["linear.bias"]}
            return DirectionMatrix(subspace, "projected", count), parameters
        path = self.target[0].path
        if kind == "svd":
            subspace, _ = singular_values({path: np.asarray(params_lib.get(self.params, path))})
            (coefficients,) = init.values()
        else:
            basis = read_torch(self.case.path("basis"))[:, 0]
            subspace = fixed_basis({path: basis.transpose(0, 3, 4, 2, 1)})
            (coefficients,) = init.values()
        return DirectionMatrix(subspace, "projected", count), {"matrix": coefficients}

    def flat(self, parameters):
        """The parameters as the case strings them together."""
        arrays = [
            np.asarray(array).T if self.info["deformator"] == "proj" else np.asarray(array)
            for array in (parameters[name] for name in self.parameters)
        ]
        return np.concatenate([array.ravel() for array in arrays])

    def first_variables(self):
        shapes = [
            tuple(int(size) for size in re.findall(r"\d+", str(shape)))
            for shape in self.data["init_digest/shapes"]
        ]
        start = testing.golden_fill_start(self.info["predictor_fill"])
        state = testing.fill_state_dict(dict(zip(self.names, shapes, strict=True)), start)
        for name, total in zip(self.names, self.data["init_digest/sum"], strict=True):
            np.testing.assert_allclose(np.sum(state[name], dtype=np.float64), total, atol=1e-6)
        return params_lib.unflatten(
            {path: to_ours(state[name]) for name in self.names if (path := our_path(name))}
        )

    def run(self):
        """Each step by precision: the state after it, what it reports, and its gradients."""

        @jax.jit
        def step(shared, state, batch):
            trained = state.directions, state.reconstructor["params"]
            gradient_of = jax.value_and_grad(self.program.loss, has_aux=True)
            (_, (report, (statistics, prediction))), gradients = gradient_of(
                trained, shared, state, batch
            )
            report |= {"logits": prediction[0], "shift_prediction": prediction[1]}
            return self.program.updated(state, gradients, statistics), report, gradients

        def in_precision(dtype, *arguments):
            return jax.tree.map(np.asarray, step(*cast(arguments, dtype)))

        state = init_state(
            jax.random.key(0), self.program.recipe, self.parameters, self.first_variables()
        )
        for index in range(self.info["steps"]):
            keys = ("in/z", "in/target_indices", "in/shifts")
            batch = tuple(self.data[key][index] for key in keys)
            arguments = (self.params, self.matrix), state, batch
            found = {"float32": in_precision(jnp.float32, *arguments)}
            with testing.x64(optimised=True):
                found["float64"] = in_precision(jnp.float64, *arguments)
            state = found["float64"][0]
            yield found


def cast(tree, dtype):
    """The tree with all its real numbers in that precision."""

    def convert(leaf):
        return jnp.asarray(leaf, dtype if jnp.issubdtype(leaf.dtype, jnp.floating) else None)

    return jax.tree.map(convert, tree)


@functools.cache
def trainer(name):
    return Trainer(name)


class Step(NamedTuple):
    """What tests compare in every step: reports, and parameters and gradient of the matrix."""

    report: Any
    directions: Any
    gradient: Any


class History(NamedTuple):
    """The steps by precision; of the reconstructor the first gradients and the last variables."""

    steps: Any
    gradients: Any
    variables: Any


@functools.cache
def history(name):
    """All steps, without the gigabytes of what lies between them."""
    steps, first, last = {"float32": [], "float64": []}, None, None
    for found in trainer(name).run():
        for dtype, (state, report, gradients) in found.items():
            steps[dtype].append(Step(report, state.directions, gradients[0]))
        state, _, gradients = found["float64"]
        first, last = first or gradients[1], state.reconstructor
    return History(steps, first, last)


def tolerance_of(case, quantity, index):
    """The index has one tolerance for the logits, or one for a range of steps."""
    for key, tolerance in case.tolerance.items():
        match = re.fullmatch(rf"{quantity}(?:_steps?(\d+)(?:_(\d+))?)?", key)
        if match and (not match[1] or int(match[1]) <= index <= int(match[2] or match[1])):
            return tolerance
    raise ValueError(f"{case.name} has no tolerance for {quantity} in step {index}")


@pytest.mark.parametrize("dtype", ("float32", "float64"))
@pytest.mark.parametrize("name", TRAINERS)
def test_five_steps(name, dtype):
    """Predictions, losses, gradients and the matrix after each step."""
    run = trainer(name)
    case, data = run.case, run.data
    for index, (report, directions, gradient) in enumerate(history(name).steps[dtype]):
        for quantity in ("logits", "shift_prediction"):
            tolerance = tolerance_of(case, "logits", index)
            expected = data[f"steps/{quantity}"][index]
            testing.assert_close(report[quantity], expected, tolerance, f"{quantity} {index}")
        losses = {"loss": "loss", "label_loss": "direction_loss", "shift_loss": "shift_loss"}
        for ours, theirs in losses.items():
            expected = data[f"steps/avg_{theirs}"][index]
            testing.assert_close(report[ours], expected, case.tolerance["losses"], theirs)
        assert report["accuracy"] == pytest.approx(data["steps/avg_percent"][index])
        if "grad" in case.tolerance:
            expected = data["steps/deformator_grad"][index]
            testing.assert_close(run.flat(gradient), expected, case.tolerance["grad"])
        expected, allowed = data["steps/deformator"][index], case.tolerance["deformator_abs"]
        testing.assert_close(run.flat(directions), expected, allowed, scale=1)


@pytest.mark.parametrize("name", TRAINERS)
def test_five_steps_in_double_precision(name):
    """The same run in float64, down to the rounding of what was stored."""
    run = trainer(name)
    for index, (report, directions, gradient) in enumerate(history(name).steps["float64"]):
        testing.assert_close(report["logits"], run.data["f64/logits"][index], 1e-6)
        testing.assert_close(run.flat(gradient), run.data["f64/deformator_grad"][index], 1e-5)
        testing.assert_close(run.flat(directions), run.data["f64/deformator"][index], 1e-6)


@pytest.mark.parametrize("name", TRAINERS)
def test_reconstructor_learns_as_the_original(name):
    """Gradients of the first step, in double precision; weights and statistics after the last.

    Tensors have gradients of much the same size; one that is 0 in truth is compared with that size.
    Adam makes whole steps of gradients that are rounding, so of the weights only those may differ
    by more than rounding, and by no more than all their steps; of most the difference is small.
    """
    run = trainer(name)
    found = history(name)
    skipped = set(run.case.info["parameters_not_comparable"])
    gradients = params_lib.flatten({"params": found.gradients})
    prefix = "step0/grad/"
    compared = [key.removeprefix(prefix) for key in run.data if key.startswith(prefix)]
    compared = [key for key in compared if key not in skipped and our_path(key)]
    sizes = {key: np.sqrt(np.mean(np.square(run.data[prefix + key]))) for key in compared}
    # That of a bias is 0 where the signs of the errors of all shifts cancel.
    least = 0.01 * np.median(list(sizes.values()))
    for key in compared:
        actual, expected = to_theirs(gradients[our_path(key)]), run.data[prefix + key]
        testing.assert_close(actual, expected, 0.01, key, scale=max(sizes[key], least))
    last = params_lib.flatten(found.variables)
    prefix, statistics = "final/predictor/", 0
    furthest = 2 * run.info["steps"] * run.info["predictor_lr"]
    for key in (key.removeprefix(prefix) for key in run.data if key.startswith(prefix)):
        path = our_path(key)
        if path is None or key in skipped:
            continue
        actual, expected = to_theirs(last[path]), run.data[prefix + key]
        if path.startswith("batch_stats"):
            testing.assert_close(actual, expected, 1e-3, key)
            statistics += 1
        else:
            difference = np.abs(actual - expected)
            assert np.max(difference) <= furthest, key
            assert np.mean(difference) <= 0.1 * furthest, key
    assert statistics
