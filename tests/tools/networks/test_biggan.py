"""BigGANs: baked copies of spectrally normalised weights, class names, settings, refusals."""

import dataclasses
import json
import pathlib
import re
import shutil
from typing import Any

import jax
import numpy as np
import pytest

from configs import bake as bake_config
from navigan_jax import config as config_lib
from navigan_jax import params as params_lib
from navigan_jax import tasks, testing
from navigan_jax.directions import Directions, Edit, write_directions
from navigan_jax.editing.bake import bake
from navigan_jax.errors import InputError
from navigan_jax.generators.source_map import read_source_map
from navigan_jax.nn import spectral_norm
from tests.tools.converting import convert_file
from tests.tools.crafting import state_dict_file
from tools.convert_weights import __main__ as command
from tools.convert_weights.foreign import read_foreign

CASES = {
    "biggan": testing.golden_names("ajbrock/BigGAN-PyTorch")[0],
    "biggan-deep": testing.golden_names("huggingface/pytorch-pretrained-BigGAN")[0],
}
pytestmark = pytest.mark.golden
STATE = dict(read_foreign(testing.golden_case(CASES["biggan"]).path("checkpoint")).content)
ATTENTION = next(key.removesuffix(".gamma") for key in STATE if key.endswith(".gamma"))


def _settings(kind: str) -> str:
    return {"biggan": "generator_config.json", "biggan-deep": "config.json"}[kind]


@pytest.fixture(scope="module", params=CASES)
def network(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Returns (kind, file, generator, params): the file and its config.json in a folder."""
    case, folder = testing.golden_case(CASES[request.param]), tmp_path_factory.mktemp("big")
    shutil.copy(case.path("checkpoint"), folder / "network.bin")
    shutil.copy(case.path("config"), folder / _settings(request.param))
    return (
        request.param,
        folder / "network.bin",
        *convert_file(request.param, folder / "network.bin"),
    )


def _sigma_of_step(state: dict[str, np.ndarray], name: str) -> float:
    """As the original: v = W'u, u = W v, both of unit norm; σ = u·(W v)."""
    matrix = state[f"{name}.weight"].reshape(len(state[f"{name}.weight"]), -1).astype(np.float64)
    v = state[f"{name}.u0"][0] @ matrix
    v /= np.linalg.norm(v)
    u = matrix @ v
    return float(u @ u / np.linalg.norm(u))


def _sigma_of_vectors(state: dict[str, np.ndarray], name: str) -> float:
    matrix = state[f"{name}.weight_orig"]
    matrix = matrix.reshape(len(matrix), -1).astype(np.float64)
    return float(state[f"{name}.weight_u"] @ (matrix @ state[f"{name}.weight_v"]))


def _growing(weights: np.ndarray, random: np.random.RandomState) -> np.ndarray:
    """A change of the weight in use that does not lower its largest singular value."""
    matrix = spectral_norm.as_matrix(weights)
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    drawn = random.standard_normal(matrix.shape) / np.sqrt(matrix.size)
    drawn += (abs(left[:, 0] @ drawn @ right[0]) - left[:, 0] @ drawn @ right[0]) * np.outer(
        left[:, 0], right[0]
    )
    if weights.ndim == 4:
        sides, inputs, outputs = weights.shape[:2], *weights.shape[2:]
        return drawn.reshape(outputs, inputs, *sides).transpose(2, 3, 1, 0)
    return drawn.T


def test_copy_has_the_shifted_weights_in_use(network: Any, tmp_path: pathlib.Path) -> None:
    """For one layer of each kind; the original's norm of the copy is that of the file."""
    kind, source, generator, params = network
    deep, state = kind == "biggan-deep", dict(read_foreign(source).content)
    names = {
        "biggan": ["linear", "blocks.1.0.conv1", "blocks.0.0.bn2.gain", f"{ATTENTION}.theta"],
        "biggan-deep": ["gen_z", "layers.0.conv_1", "layers.1.bn_2.scale", "layers.0.conv_3"],
    }[kind]
    names = [f"generator.{name}" if deep else name for name in names]
    sigma = _sigma_of_vectors if deep else _sigma_of_step
    random, deltas = np.random.RandomState(0), {}
    layers = generator.find_layers([f"{name}.weight" for name in names])
    for layer in layers:
        weights = params_lib.get(params, layer.path)
        deltas[layer.path] = _growing(weights, random).astype(np.float32)
    source_map = read_source_map(source.parent / "converted.safetensors")
    shutil.copy(source.parent / _settings(kind), tmp_path)
    out = tmp_path / "network.bin"
    told = bake(source, out, source_map, params, [(Edit(deltas), 0.7)])
    copy = dict(read_foreign(out).content)
    changed = {key for key in state if not np.array_equal(state[key], copy[key])}
    stored = ("weight_orig", "weight_u") if deep else ("weight", "u0")
    assert changed == set(told) == {f"{name}.{part}" for name in names for part in stored}
    for name in names:
        assert sigma(copy, name) == pytest.approx(sigma(state, name), rel=1e-6)
    _, baked = convert_file(kind, out)
    for path, leaf in params_lib.flatten(params).items():
        expected = leaf + np.float32(0.7) * deltas.get(path, np.float32(0))
        testing.assert_close(params_lib.get(baked, path), expected, 1e-5, path)
    z = generator.sample_latents(jax.random.key(0), 2)
    edited = params
    for path, delta in deltas.items():
        edited = params_lib.add(edited, path, np.float32(0.7) * delta)
    images = [jax.jit(generator.synthesize)(each, z) for each in (baked, edited, params)]
    testing.assert_close(images[0], images[1], 1e-4)
    with pytest.raises(AssertionError, match="relative error"):
        testing.assert_close(images[0], images[2], 1e-2)


def test_command_tells_which_stored_tensors_change(
    network: Any, tmp_path: pathlib.Path, capsys: Any
) -> None:
    kind, source, generator, params = network
    (layer,) = generator.find_layers([{"biggan": "blocks.1.0.conv1"}.get(kind, "gen_z")])
    weights = np.asarray(params_lib.get(params, layer.path))
    found = Directions(
        basis={layer.path: (weights / np.linalg.norm(weights))[None]},
        measures={"order": np.arange(1.0)},
        shift_scales=np.ones((1, 2)),
        distances=np.ones((1, 2)),
        provenance={
            "architecture": generator.architecture,
            "digest": params_lib.digest(params),
            **dict.fromkeys(("method", "metric", "seed", "latents", "config"), ""),
        },
    )
    write_directions(tmp_path / "directions.safetensors", found)
    config = bake_config.get_config()
    config.generator, config.source = str(source.parent / "converted.safetensors"), str(source)
    config.directions = str(tmp_path / "directions.safetensors")
    config.update({"indices": (0,), "shifts": (0.1,)})
    (tmp_path / "baked").mkdir()
    tasks.TASKS["bake"](config_lib.freeze(config), tmp_path / "baked")
    expected = {
        "biggan": ["blocks.1.0.conv1.weight", "blocks.1.0.conv1.u0"],
        "biggan-deep": ["generator.gen_z.weight_orig", "generator.gen_z.weight_u"],
    }[kind]
    assert f"changed in the file: {', '.join(expected)};" in capsys.readouterr().out
    record = json.loads((tmp_path / "baked" / "baked.json").read_text(encoding="utf-8"))
    assert record["stored"] == expected


def test_shift_of_zero_leaves_all_bytes(network: Any, tmp_path: pathlib.Path) -> None:
    kind, source, generator, params = network
    layer = next(each for each in generator.layers if "conv" in each.path)
    source_map = read_source_map(source.parent / "converted.safetensors")
    edit = Edit({layer.path: np.ones(layer.shape, np.float32)})
    bake(source, tmp_path / "copy.bin", source_map, params, [(edit, 0.0)])
    assert (tmp_path / "copy.bin").read_bytes() == source.read_bytes(), kind


def test_weights_that_no_norm_gives_are_refused(
    network: Any, tmp_path: pathlib.Path, small_norm: Any
) -> None:
    """The original divides by the norm after a step, so half of the weights cannot be stored.

    The message names the largest shift that works: that one is baked, and a larger one is not.
    """
    kind, _, generator, _ = network
    if kind == "biggan":
        source, generator, params, source_map = small_norm
        (layer,) = generator.find_layers(["linear"])
        edit = Edit({layer.path: -np.asarray(params_lib.get(params, layer.path))})
        pattern = r"linear/kernel, whose largest .* below 1; .* shift that works is ([\d.]+);"
        with pytest.raises(InputError, match=pattern) as caught:
            bake(source, tmp_path / "copy.bin", source_map, params, [(edit, 0.5)])
        assert not (tmp_path / "copy.bin").exists()
        match = re.search(pattern, str(caught.value))
        assert match is not None
        bake(source, tmp_path / "copy.bin", source_map, params, [(edit, float(match[1]))])
        with pytest.raises(InputError, match="below 1"):
            bake(
                source, tmp_path / "more.bin", source_map, params, [(edit, float(match[1]) + 1e-3)]
            )
        return
    kind, source, generator, params = network
    (layer,) = generator.find_layers(["gen_z"])
    edit = Edit({layer.path: -np.asarray(params_lib.get(params, layer.path))})
    source_map = read_source_map(source.parent / "converted.safetensors")
    out = tmp_path / "copy.bin"
    bake(source, out, source_map, params, [(edit, 0.5)])
    shutil.copy(source.parent / _settings(kind), tmp_path)
    _, baked = convert_file(kind, out)
    half = 0.5 * np.asarray(params_lib.get(params, layer.path))
    testing.assert_close(params_lib.get(baked, layer.path), half, 1e-5)


@pytest.fixture(scope="module")
def small_norm(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A BigGAN whose u0 is not yet that of the largest singular values: (file, ..., its map).

    The norms are then a little below these values, so that some smaller weights can be stored.
    """
    folder = tmp_path_factory.mktemp("small")
    case, random = testing.golden_case(CASES["biggan"]), np.random.RandomState(0)
    state = {
        key: np.asarray(array)
        for key, array in read_foreign(case.path("checkpoint")).content.items()
    }
    u = state["linear.u0"]
    noise = random.standard_normal(u.shape)
    noise *= 0.5 * np.linalg.norm(u) / np.linalg.norm(noise)
    state["linear.u0"] = np.float32(u + noise)
    (folder / "G_ema.pth").write_bytes(state_dict_file(state))
    shutil.copy(case.path("config"), folder / _settings("biggan"))
    converted = convert_file("biggan", folder / "G_ema.pth")
    return folder / "G_ema.pth", *converted, read_source_map(folder / "converted.safetensors")


@pytest.mark.parametrize("u", [(10**9, "<f4", 512), (0, "<f4", 7)], ids=["outside", "other size"])
def test_vectors_at_other_places_are_refused(
    u: tuple[int, str, int], small_norm: Any, tmp_path: pathlib.Path
) -> None:
    source, generator, params, source_map = small_norm
    (layer,) = generator.find_layers(["linear"])
    places = dict(source_map.networks[source_map.converted])
    place = places[layer.path]
    spectral = dataclasses.replace(place.spectral, u=u)
    places[layer.path] = dataclasses.replace(place, spectral=spectral)
    damaged = dataclasses.replace(source_map, networks={source_map.converted: places})
    edit = Edit({layer.path: np.ones(layer.shape, np.float32)})
    with pytest.raises(InputError, match="vectors of a spectral norm inside the file"):
        bake(source, tmp_path / "copy.bin", damaged, params, [(edit, 0.1)])


ABSORBED = {
    "blocks.1.0.conv1": ("conv1.bias", "bn2.stored_mean", "bn2.stored_var"),
    f"{ATTENTION}.g": ("gamma",),
    f"{ATTENTION}.o": ("gamma",),
    "output_layer.2": ("output_layer.0.gain", "output_layer.0.bias"),
}


@pytest.mark.parametrize("network", ["biggan"], indirect=True)
def test_what_stands_around_a_weight_absorbs_a_factor(network: Any, tmp_path: pathlib.Path) -> None:
    """Weights that are halved, which no norm gives: the copy has other arrays, and these images.

    All at once, as two of them share the factor of the attention; the control leaves a layer out.
    """
    kind, source, generator, params = network
    layers = generator.find_layers([f"{name}.weight" for name in ABSORBED])
    random, deltas = np.random.RandomState(1), {}
    for layer in layers:
        weights = np.asarray(params_lib.get(params, layer.path))
        noise = random.standard_normal(weights.shape) * weights.std()
        deltas[layer.path] = np.float32(-weights + 0.2 * noise)
    source_map = read_source_map(source.parent / "converted.safetensors")
    shutil.copy(source.parent / _settings(kind), tmp_path)
    out = tmp_path / "network.bin"
    told = bake(source, out, source_map, params, [(Edit(deltas), 0.5)])
    state, copy = (dict(read_foreign(path).content) for path in (source, out))
    changed = {key for key in state if not np.array_equal(state[key], copy[key])}
    expected = {f"{name}.weight" for name in ABSORBED}
    for name, parts in ABSORBED.items():
        block = "" if name == "output_layer.2" else name.rpartition(".")[0] + "."
        expected |= {block + part for part in parts}
    assert changed == set(told) == expected
    _, baked = convert_file(kind, out)
    edited = params
    for path, delta in deltas.items():
        edited = params_lib.add(edited, path, np.float32(0.5) * delta)
    partly = params_lib.replace(edited, layers[0].path, params_lib.get(params, layers[0].path))
    z, run = generator.sample_latents(jax.random.key(0), 2), jax.jit(generator.synthesize)
    images = [np.asarray(run(each, z)) for each in (baked, edited, partly)]
    testing.assert_close(images[0], images[1], 1e-4)
    with pytest.raises(AssertionError, match="relative error"):
        testing.assert_close(images[0], images[2], 1e-3)


@pytest.mark.parametrize("rows", [3, 40])
def test_left_vector_gives_the_wanted_divisor(rows: int) -> None:
    """For wide and tall matrices, wherever the divisor lies between the singular values.

    Outside of them the closest one comes back.
    """
    random = np.random.RandomState(0)
    matrix, u = random.standard_normal((rows, 9)), random.standard_normal(rows)
    values = np.linalg.svd(matrix, compute_uv=False)

    def got(wanted: float) -> float:
        found = spectral_norm.left_vector(matrix, u, None, wanted)
        return spectral_norm.divisor(matrix, found, None, 1e-12)

    for share in (0.01, 0.5, 0.99):
        wanted = values[-1] + share * (values[0] - values[-1])
        assert got(wanted) == pytest.approx(wanted, rel=1e-9)
    assert got(1.01 * values[0]) == pytest.approx(values[0], rel=1e-9)
    assert got(0.99 * values[-1]) == pytest.approx(values[-1], rel=1e-9)


@pytest.mark.parametrize("largest", [1.001, 1.5, 5.0])
def test_left_vector_survives_rounding(largest: float) -> None:
    """For a square matrix that is nearly singular, with u near its largest singular vector."""
    random = np.random.RandomState(0)
    left, _, right = np.linalg.svd(random.standard_normal((48, 48)))
    values = np.concatenate([[largest], np.geomspace(0.9, 1e-7, 47)])
    matrix, u = (left * values) @ right, left[:, 0] + 1e-3 * random.standard_normal(48)
    found = spectral_norm.left_vector(matrix, u, None, 1.0).astype(np.float32)
    assert spectral_norm.divisor(matrix, np.float64(found), None, 1e-6) == pytest.approx(
        1, rel=1e-6
    )


def test_left_vector_beside_a_stored_right_one() -> None:
    """u is scaled, and replaced where scaling would lose digits."""
    random = np.random.RandomState(0)
    matrix, v = random.standard_normal((5, 7)), random.standard_normal(7)
    u, image = random.standard_normal(5), matrix @ v
    scaled = spectral_norm.left_vector(matrix, u, v, 2.0)
    np.testing.assert_allclose(scaled / scaled[0], u / u[0])
    upright = u - (u @ image) / (image @ image) * image
    for start in (u, upright):
        found = spectral_norm.left_vector(matrix, start, v, 2.0)
        assert spectral_norm.divisor(matrix, found, v, 0.0) == pytest.approx(2.0)
        assert np.linalg.norm(found) < 1e3


def test_config_beside_the_file_is_used_or_refused(network: Any, tmp_path: pathlib.Path) -> None:
    kind, source, generator, _ = network
    shutil.copy(source, tmp_path / "network.bin")
    if kind == "biggan-deep":
        layers = json.loads((source.parent / "config.json").read_text(encoding="utf-8"))["layers"]
        assert generator.resolution == 4 << sum(layer[0] for layer in layers)
        (tmp_path / "config.json").write_text('{"layers": [[true, 1, 1]]}', encoding="utf-8")
        assert command.main([kind, str(tmp_path / "network.bin"), "--out", "a.safetensors"]) != 0
    wrong = {"biggan": [{"SN_eps": "x"}, {"BN_eps": 0}, {"SN_eps": True}]}.get(
        kind, [{"layers": 3}, {"layers": [3]}, {"layers": [[]]}, {"eps": None}, {"eps": -1}]
    )
    for config in wrong:
        (tmp_path / _settings(kind)).write_text(json.dumps(config), encoding="utf-8")
        out = str(tmp_path / "a.safetensors")
        assert command.main([kind, str(tmp_path / "network.bin"), "--out", out]) != 0
    (tmp_path / _settings(kind)).write_text("[", encoding="utf-8")
    assert command.main([kind, str(tmp_path / "network.bin"), "--out", "a.safetensors"]) != 0


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"output_layer.2.u0": None, "more": np.ones(2)}, "further arrays more"),
        ({"linear.bias": None}, "got no linear.bias"),
        ({"linear.weight": np.ones((len(STATE["linear.weight"]), 2))}, "which do not fit"),
        ({"blocks.0.0.conv2.weight": np.ones((2, 2, 1, 1))}, "vectors of .* which needs"),
        ({"output_layer.0.gain": np.ones(2)}, "other shapes:"),
    ],
)
def test_other_files_are_refused(
    changes: dict[str, Any], pattern: str, tmp_path: pathlib.Path, capsys: Any
) -> None:
    state = {**read_foreign(testing.golden_case(CASES["biggan"]).path("checkpoint")).content}
    state |= {key: value for key, value in changes.items() if value is not None}
    state = {key: np.float32(state[key]) for key in state if changes.get(key, 0) is not None}
    (tmp_path / "G_ema.pth").write_bytes(state_dict_file(state))
    out = str(tmp_path / "out.safetensors")
    assert command.main(["biggan", str(tmp_path / "G_ema.pth"), "--out", out]) != 0
    with pytest.raises(InputError, match=pattern):
        raise InputError(capsys.readouterr().err)
