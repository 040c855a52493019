"""StyleGAN2 files as three programs write them: variants that convert, and what is refused.

Images of converted files are compared with the original programs in tests/generators.
"""

import copy
import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.errors import InputError
from navigan_jax.generators.files import make_generator
from tests.tools import crafting
from tests.tools.converting import arrays_of, from_rosinality, read_nvidia, read_stylegan2
from tools.convert_weights.networks.stylegan2.reading import Options, from_content
from tools.convert_weights.readers.structure import Record
from tools.convert_weights.readers.torch_file import read_torch

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def content() -> dict[str, Any]:
    return read_torch(testing.golden_case("stylegan2_rosinality").path("checkpoint"))


def same(got: Any, want: Any) -> bool:
    """Returns whether (config, params) agree in all bits."""
    return got[0] == want[0] and params_lib.digest(got[1]) == params_lib.digest(want[1])


# The program of rosinality.


def test_state_may_stand_alone_or_below_a_prefix(content: dict[str, Any]) -> None:
    """g_ema, a bare state dict and one saved from DataParallel are the same network."""
    want = from_content({"g_ema": content["g_ema"]}, "file")
    assert same(from_content(content["g_ema"], "file"), want)
    prefixed = {f"module.{key}": array for key, array in content["g_ema"].items()}
    assert same(from_content({"g_ema": prefixed, "args": None}, "file"), want)


def test_average_that_a_file_lacks_is_made(content: dict[str, Any]) -> None:
    """It is the mean of w over many draws, the same each time; everything else is the file's."""
    config, made = from_rosinality(content["g_ema"], None)
    _, given = from_rosinality(content["g_ema"], content["latent_avg"])
    z = np.random.RandomState(0).standard_normal((4096, config["z_dim"])).astype(np.float32)
    generator = make_generator("stylegan2", config)
    w = np.asarray(jax.jit(lambda z: generator.map_latent(made, z)[:, 0])(z))
    # Two means of 4096 draws each.
    deviation = w.std(axis=0) * np.sqrt(2 / 4096)
    assert np.all(np.abs(made["mapping"]["w_avg"] - w.mean(axis=0)) < 6 * deviation)
    replaced = params_lib.replace(made, "mapping/w_avg", given["mapping"]["w_avg"])
    assert params_lib.digest(replaced) == params_lib.digest(given)


def test_learning_rate_of_the_mapping_may_be_told(content: dict[str, Any]) -> None:
    """Files of this program do not store it; the default is the program's."""
    rates = ({}, {"mapping_rate": 0.02})
    found = [from_rosinality(content["g_ema"], None, **rate)[0]["mapping_rate"] for rate in rates]
    assert found == [0.01, 0.02]


def test_network_of_a_training_snapshot_may_be_chosen(content: dict[str, Any]) -> None:
    """g_ema by default, g on request; another name is refused with a list of both."""
    other = {key: array + 1 for key, array in content["g_ema"].items() if "kernel" not in key}
    snapshot = {"g": content["g_ema"] | other, "d": {}, "g_optim": {"state": {}}} | content
    average = content["latent_avg"]
    for network, state in (("g", snapshot["g"]), (None, snapshot["g_ema"])):
        got = from_content(snapshot, "file", Options(network=network))
        assert same(got, from_rosinality(state, average))
    with pytest.raises(InputError, match="the network 'Gs'; got one with g_ema, g; choose"):
        from_content(snapshot, "file", Options(network="Gs"))


def test_number_of_draws_for_the_average_may_be_told(content: dict[str, Any]) -> None:
    """More draws make a smaller error of the mean."""
    large, *small = (
        from_content(content["g_ema"], "file", Options(draws=draws))[1]["mapping"]["w_avg"]
        for draws in (4096, 1, 256)
    )
    one, some = (np.linalg.norm(average - large) for average in small)
    assert 4 * some < one


FILTER = "convs.2.conv.blur.kernel"
SPOILT: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "layer missing": (
        lambda state: state.pop("convs.1.conv.weight"),
        "arrays that do not match its own sizes: missing synthesis/b8/conv1/kernel",
    ),
    "block missing": (
        lambda state: [state.pop(key) for key in list(state) if re.match(r"convs\.[23]\.", key)],
        "arrays that do not match its own sizes",
    ),
    "mapping missing": (
        lambda state: [state.pop(key) for key in list(state) if key.startswith("style.")],
        "no array ",
    ),
    "unknown array": (
        lambda state: state.update({"final_linear.0.weight": np.ones(3, np.float32)}),
        "the unknown arrays final_linear.0.weight",
    ),
    "other axes": (
        lambda state: state.update({"conv1.conv.weight": state["conv1.conv.weight"][0]}),
        "conv1.conv.weight of shape",
    ),
    "other size": (
        lambda state: state.update({"conv1.conv.weight": state["conv1.conv.weight"][:, :-1]}),
        "synthesis/b4/conv1/kernel: expected shape",
    ),
    "size of nothing": (
        lambda state: state.update({"to_rgb1.bias": state["to_rgb1.bias"][:, :0]}),
        "arrays that do not match its own sizes",
    ),
    "whole numbers": (
        lambda state: state.update({"style.1.bias": state["style.1.bias"].astype(np.int64)}),
        "style.1.bias of dtype int64",
    ),
    "two filters": (
        lambda state: state.update({FILTER: state[FILTER][:3, :3]}),
        "filters that are not all equal",
    ),
    "filter of no taps": (
        lambda state: state.update({FILTER: np.eye(4, dtype=np.float32)}),
        "which is not the outer product",
    ),
    "filter of sum 0": (lambda state: state.update({FILTER: 0 * state[FILTER]}), "sum 0.0"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_spoilt_state_is_refused(case: str, content: dict[str, Any]) -> None:
    """The message begins with the file and says what is wrong with it."""
    spoil, message = SPOILT[case]
    state = dict(content["g_ema"])
    spoil(state)
    with pytest.raises(InputError, match=f"^file: expected a StyleGAN2 .*{re.escape(message)}"):
        from_content({"g_ema": state, "latent_avg": content["latent_avg"]}, "file")


@pytest.mark.parametrize(
    ("content", "got"),
    [
        ([1], "got a list of 1; no arrays"),
        ({"g_ema": [1]}, "got a dict of g_ema; no arrays"),
        ({"g_ema": {"a": 1}}, "got a dict of g_ema; no arrays"),
        ({3: np.ones(3)}, "got a dict of 3; 1 arrays, such as 3;"),
        (
            {"model": {"enc.0": np.ones(3)}, "opts": Record("argparse.Namespace", (), {"a": 1})},
            "got a dict of model, opts; objects argparse.Namespace; 1 arrays, such as model.enc.0;",
        ),
    ],
)
def test_other_content_is_refused(content: Any, got: str) -> None:
    """The message names what was found: keys, classes, names of arrays."""
    with pytest.raises(InputError, match=f"expected a StyleGAN2 generator; {re.escape(got)}"):
        from_content(content, "file")


def test_average_of_another_kind_is_refused(content: dict[str, Any]) -> None:
    """latent_avg is a tensor of the size of w."""
    for average, message in ((1.0, "that is no tensor"), (np.ones(3), "w_avg: expected shape")):
        with pytest.raises(InputError, match=message):
            from_content({"g_ema": content["g_ema"], "latent_avg": average}, "file")


# NVIDIA's PyTorch programs.


@pytest.fixture
def ada() -> Record:
    """Returns a conditional residual generator."""
    path = testing.golden_case("stylegan2_ada_condclamp").path("checkpoint")
    return copy.deepcopy(read_nvidia(path)["G_ema"])


def module(network: Record, path: str) -> Record:
    for name in path.split("."):
        network = network.state["_modules"][name]
    return network


def modules(network: Record, part: str) -> list[Record]:
    """Returns the submodules of a network whose path matches."""
    names = {name.rpartition(".")[0] for name in arrays_of(network)} - {""}
    return [module(network, name) for name in sorted(names) if re.fullmatch(part, name)]


def test_filter_is_that_of_the_layers_that_resample(ada: Record) -> None:
    """conv1, which does not resample, keeps the default filter; one-axis filters are read too."""
    taps = np.array([0.1, 0.4, 0.3, 0.2], np.float32)
    for layer in modules(ada, r"synthesis\.b\d+(\.conv0|\.skip)?"):
        layer.state["_buffers"]["resample_filter"] = np.outer(taps, taps)
    config, _ = from_content(ada, "file")
    np.testing.assert_allclose(config["resample_taps"], taps, rtol=1e-6)
    module(ada, "synthesis.b8").state["_buffers"]["resample_filter"] = taps
    np.testing.assert_allclose(from_content(ada, "file")[0]["resample_taps"], taps, rtol=1e-6)


def test_network_without_noise_has_noise_of_strength_0(ada: Record) -> None:
    """Its layers declare it; a layer that declares noise and has none is refused."""
    _, with_noise = from_content(ada, "file")
    layers = modules(ada, r"synthesis\.b\d+\.conv[01]")
    for layer in layers:
        del layer.state["_parameters"]["noise_strength"], layer.state["_buffers"]["noise_const"]
    with pytest.raises(InputError, match="missing synthesis/b16/conv0/noise"):
        from_content(ada, "file")
    for layer in layers:
        layer.state["use_noise"] = False
    _, params = from_content(ada, "file")
    for path, leaf in params_lib.flatten(params).items():
        assert leaf.shape == params_lib.get(with_noise, path).shape
        if "noise" in path:
            assert not leaf.any()


def test_average_is_made_for_a_network_of_labels_without_one(ada: Record) -> None:
    """The mean is over z and labels, both drawn at random."""
    with_average = from_content(ada, "file")
    del module(ada, "mapping").state["_buffers"]["w_avg"]
    config, params = from_content(ada, "file")
    assert config == with_average[0]
    made, given = (p["mapping"]["w_avg"] for p in (params, with_average[1]))
    assert made.shape == given.shape and not np.array_equal(made, given)


def test_state_dict_alone_is_the_network_but_for_what_options_tell(ada: Record) -> None:
    """Its arrays show everything but the mapping rate and the clamp, which options give."""
    state = dict(arrays_of(ada))
    want = from_content(ada, "file")
    assert same(from_content(state, "file", Options(clamp=want[0]["clamp"])), want)
    assert from_content({"G_ema": state}, "file")[0] == want[0] | {"clamp": None}
    silent = {key: array for key, array in state.items() if "noise" not in key}
    config, params = from_content(silent, "file", Options(mapping_rate=0.5))
    assert config["mapping_rate"] == 0.5
    assert not params["synthesis"]["b8"]["conv1"]["noise_strength"].any()
    with pytest.raises(InputError, match="got a StyleGAN3 generator"):
        from_content(state | {"synthesis.input.freqs": np.ones(3)}, "file")


CHANGED: dict[str, tuple[str, str, Any, str]] = {
    "other activation": ("mapping.fc1", "activation", "relu", "layers that differ in activation"),
    "other clamp": ("synthesis.b8.conv1", "conv_clamp", 0.25, "layers that differ in conv_clamp"),
    "no rate": ("mapping.fc0", "bias_gain", "none", "layers that differ in bias_gain"),
    "hostile": ("mapping.fc0", "bias_gain", [], "layers that differ in bias_gain"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_layers_that_are_not_alike_are_refused(case: str, ada: Record) -> None:
    """One setting holds for all layers of a kind."""
    path, key, value, message = CHANGED[case]
    module(ada, path).state[key] = value
    with pytest.raises(InputError, match=message):
        from_content(ada, "file")


def test_settings_that_are_not_known_are_refused(ada: Record) -> None:
    """Another activation, and a rate that is no number."""
    layers = modules(ada, r"mapping\.fc\d+")
    for layer in layers:
        layer.state["bias_gain"] = "fast"
    with pytest.raises(InputError, match="the setting bias_gain='fast'"):
        from_content(ada, "file")
    for layer in layers:
        layer.state["activation"] = "swish"
    with pytest.raises(InputError, match="the setting activation='swish'; allowed values: lrelu"):
        from_content(ada, "file")


def test_stylegan3_is_refused_by_name(ada: Record) -> None:
    """Its file has the layout of StyleGAN2, and its first layer differs."""
    first = Record("SynthesisInput", (), {"_parameters": {}, "_modules": {}, "_buffers": {}})
    first.state["_buffers"]["freqs"] = np.ones((3, 2), np.float32)
    module(ada, "synthesis").state["_modules"]["input"] = first
    with pytest.raises(InputError, match="got a StyleGAN3 generator"):
        from_content(ada, "file")


def test_stylegan3_is_refused_as_its_own_program_pickles_it(tmp_path: Any) -> None:
    """Its modules keep NumPy arrays and Python sets beside their tensors."""
    rebuild = crafting.Global("torch_utils.persistence", "_reconstruct_persistent_obj")
    load = crafting.Global("torch.storage", "_load_from_bytes")

    def tensor(array: np.ndarray) -> Any:
        memory = crafting.storage("0", array.dtype.name, array.size, legacy=True)
        stream = crafting.Call(load, (crafting.torch_stream(memory, {"0": array}),))
        return crafting.tensor(stream, array.shape, crafting.row_strides(array.shape))

    def made(name: str, buffers: dict[str, Any], modules: dict[str, Any], **state: Any) -> Any:
        state |= {"_parameters": {}, "_buffers": buffers, "_modules": modules}
        state["_non_persistent_buffers_set"] = crafting.Call(
            crafting.Global("builtins", "set"), ([],)
        )
        meta = {"type": "class", "version": 6, "class_name": name, "state": state}
        return crafting.Call(rebuild, (meta,))

    size = crafting.numpy_array(np.array([36, 36]))
    first = made("SynthesisInput", {"freqs": tensor(np.ones((4, 2), np.float32))}, {}, size=size)
    ema = {"magnitude_ema": tensor(np.ones((), np.float32)), "down_filter": None}
    layer = made("SynthesisLayer", ema, {}, in_size=size, padding=[1, 2, 1, 2])
    synthesis = made("SynthesisNetwork", {}, {"input": first, "L0_36_4": layer})
    network = made("Generator", {}, {"synthesis": synthesis})
    path = tmp_path / "stylegan3-t-ffhq-1024x1024.pkl"
    path.write_bytes(crafting.pickled({"G": network, "D": None, "G_ema": network}, 4))
    with pytest.raises(InputError, match=r"ffhq-1024x1024\.pkl: .*; got a StyleGAN3 generator"):
        read_stylegan2(path)


def test_network_without_its_state_is_refused() -> None:
    """The message begins with the file and says what it holds."""
    with pytest.raises(InputError, match=r"^file: expected .* got an object Generator; no arrays"):
        from_content(Record("Generator", (), {}), "file")


# NVIDIA's TensorFlow programs.


@pytest.fixture
def tensorflow() -> Record:
    """Returns a conditional generator of the later program."""
    path = testing.golden_case("stylegan2_tf_cond").path("checkpoint")
    return copy.deepcopy(read_nvidia(path)["Gs"])


def variables(network: Record, component: str) -> list[tuple[str, np.ndarray]]:
    return network.state["components"][component].state["variables"]


def test_labels_of_the_first_program_convert(tensorflow: Record) -> None:
    """Labels are a bare matrix there, and are normalised together with z."""
    config, _ = from_content(tensorflow, "file")
    random = np.random.RandomState(0)
    width = config["z_dim"]
    matrix = random.standard_normal((config["label_dim"], width))
    dense = random.standard_normal((2 * width, config["mapping_widths"][0]))
    mapping = tensorflow.state["components"]["mapping"].state
    kept = [pair for pair in mapping["variables"] if not re.match("LabelEmbed|Dense0/w", pair[0])]
    drawn = {"LabelConcat/weight": matrix, "Dense0/weight": dense}
    mapping["variables"] = kept + [(key, x.astype(np.float32)) for key, x in drawn.items()]
    first, params = from_content(tensorflow, "file")
    assert first == config | {"labels": "concatenated", "label_width": width}
    np.testing.assert_allclose(params["mapping"]["embed"]["kernel"], matrix, rtol=1e-6)


def test_settings_of_tensorflow_are_read(tensorflow: Record) -> None:
    """None stands for a default; settings of training and of run time are ignored."""
    config, _ = from_content(tensorflow, "file")
    settings = tensorflow.state["static_kwargs"]
    settings |= {"mapping_lrmul": None, "conv_clamp": 8, "resample_kernel": [1, 2, 1]}
    settings |= {"truncation_psi": 0.7, "style_mixing_prob": 0.9, "synthesis_func": None}
    changed = {"clamp": 8.0, "resample_taps": [0.25, 0.5, 0.25]}
    assert from_content(tensorflow, "file")[0] == config | changed
    settings["mapping_lrmul"] = np.float32(0.5)
    assert from_content(tensorflow, "file")[0]["mapping_rate"] == 0.5
    # What the official converter passes over too; the filter of None is a box there.
    settings |= {"structure": "fixed", "w_avg_beta": 0.99, "fmap_const": None}
    settings["resample_kernel"] = None
    assert from_content(tensorflow, "file")[0]["resample_taps"] == [0.5, 0.5]
    settings["use_noise"] = False
    synthesis = tensorflow.state["components"]["synthesis"].state
    synthesis["variables"] = [pair for pair in synthesis["variables"] if "noise" not in pair[0]]
    _, params = from_content(tensorflow, "file")
    assert not params["synthesis"]["b8"]["conv0"]["noise_strength"].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nonlinearity": "relu"}, "nonlinearity='relu'; allowed values: lrelu"),
        ({"normalize_latents": False}, "normalize_latents=False; allowed values: True"),
        ({"synthesis_func": "G_synthesis_stylegan1"}, "allowed values: G_synthesis, "),
        ({"fancy": 3}, "the unknown setting fancy=3"),
        ({"resample_kernel": 4}, "the setting resample_kernel=4"),
        ({"resample_kernel": [1, "a"]}, "the setting resample_kernel='a'"),
        ({"mapping_lrmul": float("nan")}, "the setting mapping_lrmul=nan"),
        ({"mapping_lrmul": -1.0}, "mapping_rate: expected a positive number"),
        ({"conv_clamp": True}, "the setting conv_clamp=True"),
    ],
)
def test_settings_of_tensorflow_that_are_not_known_are_refused(
    settings: dict[str, Any], message: str, tensorflow: Record
) -> None:
    """A setting that would make another network is never ignored."""
    tensorflow.state["static_kwargs"] |= settings
    with pytest.raises(InputError, match=message):
        from_content(tensorflow, "file")


def test_other_networks_of_tensorflow_are_refused(tensorflow: Record) -> None:
    """One without settings; a progressive one, by name."""
    bare = copy.deepcopy(tensorflow)
    del bare.state["static_kwargs"]
    with pytest.raises(InputError, match="without its settings"):
        from_content(bare, "file")
    variables(tensorflow, "synthesis").append(("ToRGB_lod0/weight", np.ones((1, 1, 3, 3))))
    with pytest.raises(InputError, match="got a StyleGAN1 or progressive generator"):
        from_content(tensorflow, "file")


# Files.


def test_constant_need_not_be_square(content: dict[str, Any]) -> None:
    """It gives images and noise of the same aspect ratio."""
    state = dict(content["g_ema"])
    for key in state:
        if key == "input.input" or key.startswith("noises."):
            array = state[key]
            state[key] = np.concatenate([array, array[..., : array.shape[3] // 2]], axis=3)
    square = from_rosinality(content["g_ema"], content["latent_avg"])[0]
    config, params = from_rosinality(state, content["latent_avg"])
    assert config == square | {"first_size": [4, 6]}
    height, width, _ = make_generator("stylegan2", config).image_shape
    assert 2 * width == 3 * height == 3 * make_generator("stylegan2", square).resolution
    assert params["synthesis"]["b8"]["conv1"]["noise"].shape == (8, 12)
    silent = {key: array for key, array in state.items() if "noise" not in key}
    with pytest.raises(InputError, match="arrays that do not match its own sizes"):
        from_rosinality(silent, content["latent_avg"])


def test_progressive_generator_is_refused_by_its_kind(tmp_path: Any) -> None:
    """Its own program pickles another class without components."""
    variables = [("ToRGB_lod0/weight", crafting.numpy_array(np.ones((1, 1, 3, 3), np.float32)))]
    state = {"version": 2, "static_kwargs": {}, "variables": variables}
    network = crafting.Build(crafting.New(crafting.Global("tfutil", "Network")), state)
    path = tmp_path / "progressive.pkl"
    path.write_bytes(crafting.pickled((network, network, network), 3))
    with pytest.raises(InputError, match="got a StyleGAN1 or progressive generator"):
        read_stylegan2(path)


def test_pickle_without_a_generator_is_refused(tmp_path: Any) -> None:
    """The pickle of something else is read, then refused."""
    path = tmp_path / "other.pkl"
    path.write_bytes(b"\x80\x02]q\x00.")
    with pytest.raises(InputError, match="got a list of 0; no arrays"):
        read_stylegan2(path)
