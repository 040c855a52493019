"""Directions that the authors' program saved: the same changes of weights, the same images."""

import functools
import pathlib
import re
import shutil
from typing import Any

import jax
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.array_types import Params
from navigan_jax.directions import Directions, read_directions
from navigan_jax.editing.edit import apply_edit
from navigan_jax.errors import InputError
from navigan_jax.generators.base import Generator
from navigan_jax.generators.files import make_generator, write_generator
from tests.tools import crafting
from tests.tools.converting import read_navigan, read_stylegan2
from tools.convert_weights import __main__ as command
from tools.convert_weights.readers.torch_file import read_torch

PROGRAM = "yandex-research/navigan: inference."
FILES = testing.golden_names(PROGRAM)
MATRICES = testing.golden_names("yandex-research/navigan: weight_deformator.")
HESSIANS = testing.golden_names("yandex-research/navigan: hessian_power_iteration.HVP_forward")
TRAINERS = testing.golden_names("yandex-research/navigan: trainer.Trainer.train")
TRAINED = [name for name in TRAINERS if "checkpoint" in testing.golden_case(name).info["files"]]
IN_A_BASIS = next(name for name in TRAINED if "basis" in testing.golden_case(name).info["files"])

pytestmark = pytest.mark.golden(PROGRAM)


def network_of(case: testing.GoldenCase) -> tuple[Generator, Params]:
    """Returns the generator of a case."""
    return read_network(case.path("generator"))


@functools.cache
def read_network(path: pathlib.Path) -> tuple[Generator, Params]:
    config, params, _ = read_stylegan2(path)
    return make_generator("stylegan2", config), params


@functools.partial(jax.jit, static_argnums=0)
def image_of(generator: Generator, params: Params, z: Any) -> Any:
    return generator.synthesize(params, generator.map_latent(params, z))


def assert_applies(
    directions: Directions,
    moves: Any,
    case: testing.GoldenCase,
    z: np.ndarray,
    images: np.ndarray,
    changes: np.ndarray | None = None,
) -> None:
    """Compares t·ξ in the authors' layout, and the images, for (index, t) of each sample."""
    generator, params = network_of(case)
    # Both are float32 sums in another order than theirs; some cases give no tolerance for these.
    tolerance = testing.golden_case(FILES[0]).tolerance | case.tolerance
    for sample, (index, shift) in enumerate(moves):
        edit = directions.edit(int(index))
        ((_, delta),) = edit.deltas.items()
        if changes is not None:
            change = float(shift) * delta.transpose(3, 2, 0, 1)
            testing.assert_close(change, changes[sample], tolerance["weight_shifts"], "change")
        shifted = apply_edit(params, edit, np.float32(shift))
        image = np.moveaxis(np.asarray(image_of(generator, shifted, z[sample : sample + 1])), -1, 1)
        testing.assert_close(image[0], images[sample], tolerance["forward"], "image")


@pytest.mark.parametrize("role", ["eigenvectors", "eigenvectors_legacy"])
@pytest.mark.parametrize("name", FILES)
def test_eigenvectors_give_the_authors_images(name: str, role: str) -> None:
    """In both containers; the layer is in the file's name, the order is kept, norms are 1."""
    case = testing.golden_case(name)
    origin = next(
        hessian
        for hessian in map(testing.golden_case, HESSIANS)
        if hessian.info["files"]["eigenvectors"] == case.info["files"]["eigenvectors"]
    )
    directions = read_navigan(origin.path(role), *network_of(case))
    assert directions.provenance["digest"] == params_lib.digest(network_of(case)[1])
    assert list(directions.measures) == ["order"]
    data = case.arrays("data")
    moves = list(zip(data["in/batch_directions"], data["in/batch_shifts"], strict=True))
    images, changes = data["hessian/image"], data["hessian/weight_shifts"]
    assert_applies(directions, moves[: len(images)], case, data["in/z"], images, changes)
    constant = [re.fullmatch(r"constant/image_eps(\d+)_eig(\d+)", key) for key in data]
    for match in filter(None, constant):
        moves = [(int(match[2]), int(match[1]))] * len(data[match[0]])
        assert_applies(directions, moves, case, data["in/z"], data[match[0]])


@pytest.mark.parametrize("kind", ["svd", "hessian"])
@pytest.mark.parametrize("name", FILES)
def test_saved_deformation_gives_the_authors_images(name: str, kind: str) -> None:
    """Shifts count unit vectors; the norm of the saved change becomes the shift scale."""
    case = testing.golden_case(name)
    data = case.arrays("data")
    directions = read_navigan(case.path(kind), *network_of(case))
    assert len(directions) == 1
    scales = np.full((1, 2), data[f"{kind}/saved_scale"])
    np.testing.assert_allclose(directions.shift_scales, scales, rtol=1e-6)
    prefix = f"{kind}/fixed_image_shift"
    for key in (key for key in data if key.startswith(prefix)):
        moves = [(0, float(key.removeprefix(prefix)))] * len(data[key])
        assert_applies(directions, moves, case, data["in/z"], data[key])


@pytest.mark.parametrize("name", TRAINED)
def test_trained_directions_give_the_authors_images(name: str) -> None:
    """Coefficients from the checkpoint of a training, in singular vectors or in a basis."""
    case = testing.golden_case(name)
    basis = case.path("basis") if "basis" in case.info["files"] else None
    directions = read_navigan(case.path("checkpoint"), *network_of(case), basis=basis)
    assert len(directions) == case.info["architecture"]["directions_count"]
    data = case.arrays("rectification")
    moves = list(zip(data["in/batch_directions"], data["in/batch_shifts"], strict=True))
    images, changes = data["out/image"], data["out/weight_shifts"]
    assert_applies(directions, moves, case, data["in/z"], images, changes)
    # The negative control: another direction is another image.
    with pytest.raises(AssertionError):
        other = [((index + 1) % len(directions), shift) for index, shift in moves]
        assert_applies(directions, other, case, data["in/z"], images)


@pytest.mark.parametrize("name", MATRICES)
def test_weight_deformators_give_the_authors_images(name: str, tmp_path: pathlib.Path) -> None:
    """The states of both kinds at several layers, as a training's checkpoint would hold them."""
    case = testing.golden_case(name)
    data = case.arrays("data")
    weights = read_torch(case.path("generator"))["g_ema"]
    for label, info in case.info["architecture"]["sub_cases"].items():
        prefix = f"convs.{info['layer_ix']}.conv."
        state = {
            key.removeprefix(f"{label}/state/"): data[key]
            for key in data
            if key.startswith(f"{label}/state/")
        }
        basis = None
        if (vectors := state.pop("basis_vectors", None)) is not None:
            basis = tmp_path / "basis.pt"
            content, memories = crafting.state_dict({"array": vectors})
            basis.write_bytes(crafting.torch_zip(content["array"], memories))
        state["weight"] = weights[f"{prefix}weight"]
        content, memories = crafting.state_dict(
            {f"style_gan2.{prefix}{key}": np.ascontiguousarray(x) for key, x in state.items()}
        )
        path = tmp_path / "checkpoint.pt"
        path.write_bytes(crafting.torch_zip({"step": 4, "generator": content}, memories))
        directions = read_navigan(path, *network_of(case), basis=basis)
        moves = list(zip(data["in/batch_directions"], data["in/batch_shifts"], strict=True))
        images, changes = data[f"{label}/image"], data[f"{label}/weight_shifts"]
        assert_applies(directions, moves, case, data["in/z"], images, changes)


@pytest.mark.parametrize("name", HESSIANS)
def test_vectors_of_an_unfinished_run_tell_their_eigenvalues(
    name: str, tmp_path: pathlib.Path
) -> None:
    """Such a file holds vectors that are not normalised; their norms estimate the eigenvalues."""
    case = testing.golden_case(name)
    vectors = case.arrays("data")["f32/eigenvectors_unnormalised"]
    content, memories = crafting.state_dict({"array": vectors})
    path = tmp_path / "eigenvectors.tmp.pt"
    path.write_bytes(crafting.torch_zip(content["array"], memories))
    number = case.info["architecture"]["layer_ix"]
    directions = read_navigan(path, *network_of(case), layer=f"convs.{number}")
    norms = np.linalg.norm(vectors.reshape(len(vectors), -1), axis=1)
    np.testing.assert_allclose(directions.measures["eigenvalue"], norms, rtol=1e-6)
    with pytest.raises(
        InputError, match=r"gives the layer; got another name; give the layer, such as --layer"
    ):
        read_navigan(path, *network_of(case))


def test_what_does_not_fit_is_refused(tmp_path: pathlib.Path) -> None:
    """Another layer, another generator, no basis, another basis, latent directions."""
    case = testing.golden_case(HESSIANS[0])
    network, eigenvectors = network_of(case), case.path("eigenvectors")
    _, _, outputs, inputs, *_ = read_torch(eigenvectors).shape
    other = next(
        layer
        for layer in network[0].layers
        if len(layer.shape) == 4 and layer.shape[2:] != (inputs, outputs)
    )
    with pytest.raises(InputError, match=rf"where {other.original_name} \({other.path}\) needs"):
        read_navigan(eigenvectors, *network, layer=other.original_name)
    with pytest.raises(InputError, match="which is no convolution"):
        read_navigan(eigenvectors, *network, layer="style.1")
    with pytest.raises(InputError, match=r"expected a layer of this stylegan2; got 'convs\.90'"):
        renamed = tmp_path / "eigenvectors_layer90_x.pt"
        shutil.copyfile(eigenvectors, renamed)
        read_navigan(renamed, *network)
    case = testing.golden_case(IN_A_BASIS)
    generator, params = network = network_of(case)
    with pytest.raises(InputError, match="give the basis file of the training with --basis"):
        read_navigan(case.path("checkpoint"), *network)
    vectors = read_torch(case.path("basis"))[:-1]
    content, memories = crafting.state_dict({"array": np.ascontiguousarray(vectors)})
    shorter = tmp_path / "basis.pt"
    shorter.write_bytes(crafting.torch_zip(content["array"], memories))
    with pytest.raises(InputError, match=rf"vectors, one for each .*; got {len(vectors)};"):
        read_navigan(case.path("checkpoint"), *network, basis=shorter)
    changed = jax.tree.map(lambda leaf: leaf * np.float32(1.01), params)
    with pytest.raises(InputError, match="expected the generator that it was trained with"):
        read_navigan(case.path("checkpoint"), generator, changed, basis=case.path("basis"))
    latent = tmp_path / "deformator.pt"
    latent.write_bytes(crafting.state_dict_file({"log_mat_half": np.ones((3, 3), np.float32)}))
    with pytest.raises(InputError, match="latent directions, which change no weights"):
        read_navigan(latent, *network)


def test_command_writes_directions(tmp_path: pathlib.Path, capsys: Any) -> None:
    """The file holds the digest of the given generator."""
    case = testing.golden_case(IN_A_BASIS)
    config, params, origin = read_stylegan2(case.path("generator"))
    generator, out = tmp_path / "generator.safetensors", tmp_path / "directions.safetensors"
    write_generator(generator, "stylegan2", config, params, origin)
    arguments = ["navigan", str(case.path("checkpoint")), "--generator", str(generator)]
    arguments += ["--basis", str(case.path("basis")), "--out", str(out)]
    assert command.main(arguments) == 0
    assert "navigan, trained in a basis" in capsys.readouterr().out
    directions = read_directions(out, digest=params_lib.digest(params))
    assert len(directions) == case.info["architecture"]["directions_count"]
