"""StyleGAN2 files as users report them: with missing, repeated or additional contents."""

import copy
import pathlib
import re
from typing import Any

import jax
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.errors import InputError
from navigan_jax.generators.files import make_generator
from tests.tools import crafting
from tests.tools.converting import from_rosinality, read_nvidia, read_stylegan2
from tests.tools.test_finding import module
from tools.convert_weights.networks.stylegan2.reading import Options, from_content
from tools.convert_weights.readers.structure import Record
from tools.convert_weights.readers.torch_file import read_torch

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return read_torch(testing.golden_case("stylegan2_rosinality").path("checkpoint"))


@pytest.fixture(scope="module")
def plain(content: dict[str, Any]) -> Any:
    """Returns (config, params) of the plain file."""
    return from_content(content, "file")


def same(got: Any, want: Any) -> bool:
    """Returns whether (config, params) agree in all bits."""
    return got[0] == want[0] and params_lib.digest(got[1]) == params_lib.digest(want[1])


def without(state: dict[str, Any], pattern: str) -> dict[str, Any]:
    return {key: array for key, array in state.items() if not re.match(pattern, key)}


# Noise.


def test_noise_that_a_file_lacks_is_drawn_once(
    content: dict[str, Any], plain: Any, tmp_path: pathlib.Path
) -> None:
    """Always the same, of deviation 1, and said so; all other weights are those of the file, so
    that without noise the images are those of the network."""
    state = without(content["g_ema"], r"noises\.")
    path = tmp_path / "silent.pt"
    path.write_bytes(crafting.state_dict_file(state | {"latent_avg": content["latent_avg"]}))
    config, params, source = read_stylegan2(path)
    assert source["noise"] == "not in the file: drawn once, seed 0"
    assert same((config, params), from_rosinality(state, content["latent_avg"]))
    flat, want = (params_lib.flatten(p) for p in (params, plain[1]))
    drawn = {name for name in flat if name.endswith("/noise")}
    assert len(drawn) == 7 and not any("/noise" in name for name in source["map"]["networks"])
    for name, leaf in flat.items():
        assert leaf.shape == want[name].shape
        assert np.array_equal(leaf, want[name]) is (name not in drawn), name
    numbers = np.concatenate([flat[name].reshape(-1) for name in sorted(drawn)])
    assert abs(numbers.std() - 1) < 4 / np.sqrt(2 * numbers.size)
    assert len(np.unique(numbers)) > 0.99 * numbers.size


def test_noise_of_some_layers_alone_is_refused(content: dict[str, Any]) -> None:
    """A file that lacks one noise buffer only is damaged."""
    state = without(content["g_ema"], r"noises\.noise_3")
    with pytest.raises(InputError, match="missing synthesis/b16/conv0/noise"):
        from_content(state, "file")


@pytest.mark.parametrize("case", ["ada_condclamp", "tf_resnet"])
def test_noise_is_drawn_for_nvidias_networks_too(case: str) -> None:
    """Layers that have a noise strength get noise."""
    network = copy.deepcopy(
        read_nvidia(testing.golden_case(f"stylegan2_{case}").path("checkpoint"))
    )
    chosen = network.get("G_ema") or network["Gs"]
    want = params_lib.flatten(from_content(chosen, "file")[1])
    drop_noise(chosen)
    got = params_lib.flatten(from_content(chosen, "file")[1])
    for name, leaf in got.items():
        assert np.array_equal(leaf, want[name]) is not name.endswith("/noise"), name


def drop_noise(network: Record) -> None:
    for part in (*network.state.get("_modules", {}).values(), *_components(network)):
        drop_noise(part)
    network.state.get("_buffers", {}).pop("noise_const", None)
    if "variables" in network.state:
        network.state["variables"] = [
            pair for pair in network.state["variables"] if not re.match(r"noise\d", pair[0])
        ]


def _components(network: Record) -> list[Record]:
    return list(network.state.get("components", {}).values())


# Labels and the average in names that have one place for each.


def test_conditional_network_in_names_without_a_label_is_refused(content: dict[str, Any]) -> None:
    """Its first layer takes z and the label's embedding; it is not a network of a larger z."""
    state = dict(content["g_ema"])
    first = state["style.1.weight"]
    state["style.1.weight"] = np.concatenate([first, first], axis=1)
    with pytest.raises(InputError, match=r"style\.1\.weight with 128 inputs where w has 64: a net"):
        from_content({"g_ema": state}, "file")


def test_mapping_of_unequal_widths_is_refused(content: dict[str, Any]) -> None:
    """Rosinality's program cannot make one."""
    state = dict(content["g_ema"])
    state["style.3.weight"] = state["style.3.weight"][:-1]
    with pytest.raises(InputError, match=r"layers style\.N of different sizes"):
        from_content({"g_ema": state}, "file")


@pytest.mark.parametrize("shape", [(8, 64), (1, 8, 64), (1, 64)])
def test_average_once_a_layer_is_the_average(
    shape: tuple[int, ...], content: dict[str, Any], plain: Any
) -> None:
    """Encoders store one copy a layer, beside the decoder or in it."""
    average = np.broadcast_to(content["latent_avg"], shape)
    state = {f"decoder.{key}": array for key, array in content["g_ema"].items()}
    assert same(from_content({"state_dict": state, "latent_avg": average}, "file"), plain)
    assert same(from_content(state | {"decoder.latent_avg": average}, "file"), plain)


def test_averages_that_differ_between_layers_are_refused(content: dict[str, Any]) -> None:
    """They mean another kind of truncation, which the generator does not have."""
    average = np.array(np.broadcast_to(content["latent_avg"], (8, 64)))
    average[3] += 1
    with pytest.raises(InputError, match=r"a latent_avg of shape \[8, 64\] whose rows differ"):
        from_content({"g_ema": content["g_ema"], "latent_avg": average}, "file")


# Pickled modules, which say what a state dict does not.


def pickled(state: dict[str, Any], **said: Any) -> Record:
    network = module(state, "model.Generator")
    for layer in network.state["_modules"]["style"].state["_modules"].values():
        layer.state |= said
    return network


def test_pickled_network_of_rosinality_converts(content: dict[str, Any], plain: Any) -> None:
    """Its own rate multiplier and the average stored beside it are used."""
    state = content["g_ema"]
    wrapped = {"g_ema": pickled(state), "latent_avg": content["latent_avg"]}
    assert same(from_content(wrapped, "file"), plain)
    config, _ = from_content(pickled(state, lr_mul=0.02, activation="fused_lrelu"), "file")
    assert config == plain[0] | {"mapping_rate": 0.02}
    with pytest.raises(InputError, match="expected --mapping-rate only for a state dict"):
        from_content(pickled(state, lr_mul=0.02), "file", Options(mapping_rate=0.5))
    with pytest.raises(
        InputError, match="the setting activation='relu'; allowed values: fused_lrelu"
    ):
        from_content(pickled(state, activation="relu"), "file")


def test_module_whose_sizes_contradict_its_arrays_is_refused() -> None:
    """A mapping that declares labels and has no array for them is incomplete."""
    path = testing.golden_case("stylegan2_ada_orig").path("checkpoint")
    network = copy.deepcopy(read_nvidia(path)["G_ema"])
    network.state["_modules"]["mapping"].state["c_dim"] = 5
    with pytest.raises(InputError, match="the setting label_dim=5 but arrays of label_dim 0"):
        from_content(network, "file")


# Forks of NVIDIA's first program.


@pytest.fixture
def tensorflow() -> Record:
    path = testing.golden_case("stylegan2_tf_skip").path("checkpoint")
    return copy.deepcopy(read_nvidia(path)["Gs"])


REPEATED: dict[str, dict[str, Any]] = {
    "sides": {"resolution_w": 32, "resolution_h": 32},
    "any aspect": {"min_h": 4, "min_w": 4, "res_log2": 3},
    "first size": {"init_res": [4, 4], "size": None, "scale_type": None, "verbose": True},
    "output size": {"init_res": (4, 4), "size": [32, 32], "scale_type": "fit", "impl": "cuda"},
}


@pytest.mark.parametrize("settings", REPEATED)
def test_settings_that_repeat_sizes_are_passed_over(settings: str, tensorflow: Record) -> None:
    """The arrays show them."""
    want = from_content(tensorflow, "file")
    tensorflow.state["static_kwargs"] |= REPEATED[settings]
    assert same(from_content(tensorflow, "file"), want)


@pytest.mark.parametrize(
    "settings",
    [
        {"min_h": 5},
        {"init_res": [4, 5]},
        {"size": [40, 32]},
        {"resolution_w": 64},
        {"min_w": "4"},
        {"latent_size": 31},
        {"label_size": 3},
    ],
)
def test_settings_of_other_sizes_are_refused(settings: Any, tensorflow: Record) -> None:
    """A network that stretches its images is another network."""
    tensorflow.state["static_kwargs"] |= settings
    with pytest.raises(InputError, match=r"the setting \w+=.* (beside|but) arrays"):
        from_content(tensorflow, "file")


def widened(network: Record, first: tuple[int, int], named: str) -> Record:
    """Returns the network with a constant, noise and block names of another aspect ratio."""
    network = copy.deepcopy(network)
    synthesis = network.state["components"]["synthesis"].state
    variables = []
    for name, array in synthesis["variables"]:
        if match := re.fullmatch(r"(\d+)x\d+/(.*)", name):
            times = int(match[1]) // 4
            sides = [side * times for side in (first if named == "sides" else (4, 4))]
            name = f"{sides[0]}x{sides[1]}/{match[2]}"
        if name.endswith("/const") or re.fullmatch(r"noise\d+", name):
            height, width = (side * array.shape[2] // 4 for side in first)
            array = np.resize(array, (*array.shape[:2], height, width))
        variables.append((name, array))
    synthesis["variables"] = variables
    return network


@pytest.mark.parametrize("named", ["sides", "as if square"])
@pytest.mark.parametrize("first", [(5, 3), (3, 5), (1, 1), (7, 4)])
def test_networks_of_any_aspect_convert(
    first: tuple[int, int], named: str, tensorflow: Record
) -> None:
    """Blocks may be named by both sides or as in a square network; the constant gives the sizes."""
    config, params = from_content(tensorflow, "file")
    network = widened(tensorflow, first, named)
    network.state["static_kwargs"] |= {"min_h": first[0], "min_w": first[1], "res_log2": 3}
    got, found = from_content(network, "file")
    assert got == config | {"first_size": list(first)}
    shape = make_generator("stylegan2", got).image_shape
    assert shape == (8 * first[0], 8 * first[1], 3)
    kernel = "synthesis/b16/conv0/kernel"
    np.testing.assert_array_equal(params_lib.get(found, kernel), params_lib.get(params, kernel))
    assert params_lib.get(found, "synthesis/b16/conv0/noise").shape == (4 * first[0], 4 * first[1])


def test_network_of_another_aspect_makes_such_images(tensorflow: Record) -> None:
    """40 rows of 24 pixels; their values are tested with the generator."""
    config, params = from_content(widened(tensorflow, (5, 3), "sides"), "file")
    generator = make_generator("stylegan2", config)
    z = np.zeros((2, *generator.space.shape), np.float32)
    images = jax.eval_shape(
        lambda z: generator.synthesize(params, generator.map_latent(params, z)), z
    )
    assert images.shape == (2, 40, 24, 3)


def test_blocks_that_contradict_the_constant_are_refused(tensorflow: Record) -> None:
    """Block names with other sides than the constant's are refused."""
    network = widened(tensorflow, (5, 3), "sides")
    synthesis = network.state["components"]["synthesis"].state
    synthesis["variables"] = [
        (name, array[:, :, :4] if name.endswith("/const") else array)
        for name, array in synthesis["variables"]
    ]
    with pytest.raises(InputError, match=r"synthesis/5x3/Const/const of shape \[1, \d+, 4, 3\]"):
        from_content(network, "file")


@pytest.mark.parametrize("wrapper", [lambda d, g: g, lambda d, g: (d, g), lambda d, g: [g]])
def test_network_of_tensorflow_may_stand_alone_or_in_a_pair(
    wrapper: Any, tensorflow: Record
) -> None:
    """The network keeps its own name."""
    discriminator = Record(tensorflow.name, (), {"name": "D", "variables": [], "components": {}})
    want = from_content(tensorflow, "file")
    content = wrapper(discriminator, tensorflow)
    assert same(from_content(content, "file", Options(network="Gs")), want)
