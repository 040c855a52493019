"""Subspaces and direction matrices against the deformators of the original program."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.discovery.latent_network import LatentNetwork
from navigan_jax.discovery.matrix import DirectionMatrix
from navigan_jax.generators.files import make_generator
from navigan_jax.subspaces.base import LATENT, Latent, fixed_basis
from navigan_jax.subspaces.svd import SingularValues, singular_values
from tests.tools.converting import from_rosinality
from tools.convert_weights.readers.torch_file import read_torch

PROGRAMS = (
    "yandex-research/navigan: weight_deformator.",
    "yandex-research/navigan: latent_deformator.",
)
WEIGHTS, LATENTS = map(testing.golden_names, PROGRAMS)

pytestmark = pytest.mark.golden(*PROGRAMS)


def weight_hwio(array):
    """Turns [..., O, I, H, W] into [..., H, W, I, O]."""
    return np.moveaxis(array, (-4, -3, -2, -1), (-1, -2, -4, -3))


@functools.cache
def weight_case(case_name):
    case = testing.golden_case(case_name)
    content = read_torch(case.path("generator"))
    config, params = from_rosinality(content["g_ema"], content["latent_avg"])
    return case, case.arrays("data"), make_generator("stylegan2", config), params


def make_matrix(case_name, name):
    """Returns the matrix of directions, its parameters and the layer of a sub-case."""
    case, data, generator, _ = weight_case(case_name)
    settings = case.info["architecture"]["sub_cases"][name]
    (layer,) = generator.find_layers([f"convs.{settings['layer_ix']}"])
    state = {key.removeprefix(f"{name}/state/"): data[key] for key in data if f"{name}/" in key}
    if settings["kind"] == "svd":
        u = state["u"].reshape(*layer.shape[:-1], -1)
        subspace = SingularValues({layer.path: u}, {layer.path: state["vh"]})
        learned = state["direction_to_eigenvalues_delta"]
    else:
        subspace = fixed_basis({layer.path: weight_hwio(state["basis_vectors"][:, 0])})
        learned = state["direction_to_basis_coefs"]
    matrix = DirectionMatrix(subspace, "projected", len(learned))
    return matrix, {"matrix": jnp.asarray(learned)}, layer


def settings_of(case_name):
    return testing.golden_case(case_name).info["architecture"]["sub_cases"]


def sub_cases(case_names, key, wanted):
    """Returns (case, sub-case) of each sub-case whose setting `key` is one of `wanted`."""
    return [
        (case_name, name)
        for case_name in case_names
        for name, settings in sorted(settings_of(case_name).items())
        if settings[key] in wanted
    ]


@pytest.mark.parametrize(("case_name", "name"), sub_cases(WEIGHTS, "kind", ["svd", "fixedbasis"]))
def test_changes_of_weights_and_their_images_equal_the_original(case_name, name):
    """Each sample has its own direction and shift; one number for all does the same."""
    case, data, generator, params = weight_case(case_name)
    matrix, parameters, layer = make_matrix(case_name, name)
    deltas = matrix.deltas(
        parameters, jnp.asarray(data["in/batch_directions"]), jnp.asarray(data["in/batch_shifts"])
    )
    expected = weight_hwio(data[f"{name}/weight_shifts"])
    testing.assert_close(deltas[layer.path], expected, case.tolerance["weight_shifts"])
    with pytest.raises(AssertionError, match="relative error"):  # the kernel's sides swapped
        wrong = jnp.swapaxes(deltas[layer.path], 1, 2)
        testing.assert_close(wrong, expected, case.tolerance["weight_shifts"])

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0))
    def images(z, delta):
        changed = params_lib.add(params, layer.path, delta)
        return generator.synthesize(changed, generator.map_latent(changed, z[None]))[0]

    image = np.moveaxis(np.asarray(images(data["in/z"], deltas[layer.path])), -1, 1)
    testing.assert_close(image, data[f"{name}/image"], case.tolerance["forward"])
    index, shift = case.info["scalar_direction"], case.info["scalar_shift"]
    single = matrix.deltas(parameters, jnp.array([index]), jnp.array([float(shift)]))
    key = next(key for key in case.info["scalar_keys"][name] if "weight_shifts" in key)
    testing.assert_close(
        single[layer.path], weight_hwio(data[key]), case.tolerance["weight_shifts"]
    )


@pytest.mark.parametrize(("case_name", "name"), sub_cases(WEIGHTS, "kind", ["svd"]))
def test_singular_vectors_span_what_the_original_ones_span(case_name, name):
    """u_i v_i' does not depend on signs: our basis gives the original one's change."""
    _, _, _, params = weight_case(case_name)
    matrix, _, layer = make_matrix(case_name, name)
    weight = np.asarray(params_lib.get(params, layer.path))
    ours, values = singular_values({layer.path: weight})
    # Neighbours of nearly equal singular values may mix: compare those that stand apart.
    gaps = np.abs(np.diff(values, prepend=np.inf, append=-np.inf))
    apart = np.minimum(gaps[:-1], gaps[1:]) > 1e-3 * values[0]
    assert apart.sum() > len(values) // 2
    eye = jnp.eye(len(values))[apart]
    testing.assert_close(
        ours.expand(eye)[layer.path], matrix.subspace.expand(eye)[layer.path], 1e-3
    )


_KINDS = {
    "ID": "identity",
    "LINEAR": "linear",
    "PROJECTIVE": "projected",
    "ORTHO": "orthonormal",
    "RANDOM": "random",
}
_NETWORK = "FC"  # with hidden layers


def test_every_kind_of_sub_case_is_compared():
    """The data hold no other kinds than those that the other tests select."""
    for case_names, key, known in (
        (WEIGHTS, "kind", {"svd", "fixedbasis"}),
        (LATENTS, "type", {*_KINDS, _NETWORK}),
    ):
        found = [settings[key] for name in case_names for settings in settings_of(name).values()]
        assert found and set(found) <= known


@pytest.mark.parametrize(("case_name", "name"), sub_cases(LATENTS, "type", _KINDS))
def test_changes_of_latents_equal_the_original(case_name, name):
    case = testing.golden_case(case_name)
    data, settings = case.arrays("data"), settings_of(case_name)[name]
    parameters, drawn = {}, None
    if settings["type"] == "ORTHO":
        parameters["skew_half"] = jnp.asarray(data[f"{name}/state/log_mat_half"])
    elif settings["type"] == "RANDOM":
        drawn = jnp.asarray(data[f"{name}/linear_not_in_state_dict"].T)
    elif settings["type"] != "ID":
        parameters["matrix"] = jnp.asarray(data[f"{name}/state/linear.weight"].T)
        if "linear.bias" in settings["state"]:
            parameters["bias"] = jnp.asarray(data[f"{name}/state/linear.bias"])
    matrix = DirectionMatrix(
        Latent(settings["shift_dim"][0]), _KINDS[settings["type"]], settings["input_dim"], drawn
    )
    got = matrix.mix(parameters, jnp.asarray(data[f"{name}/in"]))[LATENT]
    expected = data[f"{name}/out_eval"].reshape(got.shape)
    testing.assert_close(got, expected, case.tolerance["forward"])
    if settings["type"] == "ORTHO":
        exponential = matrix.coefficients(parameters).T
        testing.assert_close(exponential, data[f"{name}/expm_scipy_f64"], case.tolerance["expm"])
        with pytest.raises(AssertionError, match="relative error"):  # its inverse
            testing.assert_close(
                exponential.T, data[f"{name}/expm_scipy_f64"], case.tolerance["expm"]
            )


@pytest.mark.parametrize(("case_name", "name"), sub_cases(LATENTS, "type", [_NETWORK]))
def test_network_of_latents_equals_the_original(case_name, name):
    """With running statistics, and with those of the batch, which update the running ones."""
    case = testing.golden_case(case_name)
    data, settings = case.arrays("data"), settings_of(case_name)[name]

    params = {
        f"dense{index}": {
            "kernel": data[f"{name}/state/fc{index + 1}.weight"].T,
            "bias": data[f"{name}/state/fc{index + 1}.bias"],
        }
        for index in range(4)
    }
    for index in range(3):
        prefix = f"{name}/state/bn{index + 1}"
        params[f"norm{index}"] = {
            "scale": data[f"{prefix}.weight"],
            "bias": data[f"{prefix}.bias"],
        }

    def statistics(prefix):
        return {
            f"norm{index}": {
                "mean": data[f"{name}/{prefix}/bn{index + 1}.running_mean"],
                "var": data[f"{name}/{prefix}/bn{index + 1}.running_var"],
            }
            for index in range(3)
        }

    variables = {"params": params, "batch_stats": statistics("state")}
    network = LatentNetwork(width=params["dense0"]["kernel"].shape[1])
    shapes = jax.eval_shape(lambda x: network.init(jax.random.key(0), x, False), data[f"{name}/in"])
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, dict(shapes))
    amounts, tolerance = jnp.asarray(data[f"{name}/in"]), case.tolerance
    latent = Latent(settings["shift_dim"][0])
    made = network.apply(variables, amounts, False)
    testing.assert_close(
        latent.expand(made)[LATENT], data[f"{name}/out_eval"], tolerance["forward"]
    )
    made, changed = network.apply(variables, amounts, True, mutable=["batch_stats"])
    testing.assert_close(
        latent.expand(made)[LATENT], data[f"{name}/out_train"], tolerance["forward"]
    )
    moved = params_lib.flatten(changed["batch_stats"])
    for path, wanted in params_lib.flatten(statistics("after_train")).items():
        testing.assert_close(moved[path], wanted, tolerance["running_stats"], path)
