"""The search for a network in a file's content: any wrapper, the best of several, or a reason."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest

from navigan_jax import params as params_lib
from navigan_jax.errors import InputError
from tests.tools.crafting import by_module, dcgan_state
from tools.convert_weights.finding import Form, choose, describe, find
from tools.convert_weights.networks import dcgan
from tools.convert_weights.readers.modules import name_values
from tools.convert_weights.readers.structure import Record

NAMES = ("first.weight", "first.bias", "layers.0.weight", "layers.1.conv.weight")
FORM = Form("toy", r"first\.weight", NAMES.__contains__)


def arrays(seed: float = 0, names: tuple[str, ...] = NAMES) -> dict[str, Any]:
    return {name: np.full(3, seed + index) for index, name in enumerate(names)}


def prefixed(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {f"{prefix}{name}": array for name, array in state.items()}


def assert_same(got: Mapping[str, Any], want: Mapping[str, Any]) -> None:
    assert set(got) == set(want)
    for name, array in want.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)


def module(state: Mapping[str, Any], kind: str = "toy.Network", **attributes: Any) -> Record:
    """Returns a module with this state dict, as PyTorch pickles it."""
    own, below = by_module(state)
    groups = {
        "_parameters": own | {"absent": None},
        "_buffers": {},
        "_modules": {name: module(part, "toy.Layer") for name, part in below.items()},
    }
    return Record(kind, (), {"training": False, **groups, **attributes})


def persistent(record: Record) -> Record:
    """Returns a module as NVIDIA's programs pickle it, by a call that the reader does not know."""
    meta = {"type": "class", "class_name": record.name, "state": record.state}
    return Record("torch_utils.persistence._reconstruct_persistent_obj", (meta,))


WRAPPERS: dict[str, Callable[[Any], Any]] = {
    "nothing": lambda state: state,
    "parallel": lambda state: prefixed("module.", state),
    "compiled": lambda state: prefixed("_orig_mod.", state),
    "compiled in parallel": lambda state: prefixed("module._orig_mod.", state),
    "parallel, compiled": lambda state: prefixed("_orig_mod.module.", state),
    "lightning": lambda state: {
        "state_dict": prefixed("generator.", state),
        "pytorch-lightning_version": "1.5.0",
        "epoch": 3,
    },
    "encoder": lambda state: {
        "state_dict": prefixed("decoder.", state) | {"encoder.input.0.weight": np.ones(2)},
        "latent_avg": np.ones(4),
        "opts": {"device": "cuda:0"},
    },
    "unheard of": lambda state: {
        "a": {"b": [{"c.d": 1}, {"my_style_net": prefixed("x.y.", state)}]}
    },
    "list": lambda state: [state],
    "pair": lambda state: ({"epoch": 1}, state),
    "numbered": lambda state: {0: state, 1: None},
    "numbers of training": lambda state: {
        "model": state,
        "optimizer": {"state": {0: {"exp_avg": np.ones(3), "step": np.ones(())}}},
        "iteration": np.array(7),
    },
    "parts": lambda state: {
        "first": {name[6:]: array for name, array in state.items() if name.startswith("first.")},
        "layers": {name[7:]: array for name, array in state.items() if name.startswith("layers.")},
    },
    "module": lambda state: module(state),
    "module in parallel": lambda state: module(prefixed("module.", state), "DataParallel"),
    "module of a dict": lambda state: {"G": module(state), "args": Record("argparse.Namespace")},
    "module with arrays of its own": lambda state: module(
        state, gain=np.float64(2), hooks={"x": np.ones(2)}, mean=np.ones(3)
    ),
    "attribute of an object": lambda state: Record(
        "a.Trainer", (), {"_modules": {}, "ema": {"shadow": state}, "step": 3}
    ),
    "argument of an object": lambda state: Record("a.Saved", ("v1", state)),
    "persistent": lambda state: [persistent(module(state))],
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_network_is_found_in_any_wrapper(wrapper: str) -> None:
    """The same arrays are found under the same names, without anything stored beside them."""
    state = arrays()
    found = find(name_values(WRAPPERS[wrapper](state)), [FORM], "file")
    assert len(found) == 1
    assert_same(found[0].arrays, state)


@pytest.mark.parametrize("outer", ["list", "pair", "numbered", "argument of an object"])
@pytest.mark.parametrize("middle", ["list", "numbers of training", "attribute of an object"])
@pytest.mark.parametrize("inner", ["compiled in parallel", "lightning", "encoder", "module"])
def test_wrappers_may_be_nested(outer: str, middle: str, inner: str) -> None:
    """In any order."""
    content = WRAPPERS[outer](WRAPPERS[middle](WRAPPERS[inner](arrays())))
    (found,) = find(name_values(content), [FORM], "file")
    assert_same(found.arrays, arrays())


@pytest.mark.parametrize(
    ("average", "other"),
    [
        ("g_ema", "g"),
        ("G_ema", "G"),
        ("generator_ema", "generator"),
        ("params_ema", "params"),
        ("netG_EMA", "netG"),
        ("ema", "model"),
        ("ema_model", "model"),
        ("G_ema_state_dict", "G_state_dict"),
        ("shadow", "weights"),
        ("Gs", "G"),
        ("averaged", "averaged_discriminator"),
        ("generator", "discriminator"),
        ("netG", "netD"),
        ("G_ema", "D_ema"),
        ("decoder", "something"),
    ],
)
@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("is_flat", [False, True])
def test_average_goes_before_the_network_and_a_discriminator_last(
    average: str, other: str, first: int, is_flat: bool
) -> None:
    """In any order in the file, as separate dicts or as prefixes in one dict."""
    states = [(average, arrays(1)), (other, arrays(2))][:: 1 if first else -1]
    content: dict[str, Any] = {}
    for key, state in states:
        content |= prefixed(f"{key}.", state) if is_flat else {key: state}
    found = find(name_values(content), [FORM], "file")
    chosen, state = choose(found, lambda candidate: candidate.arrays, None, "file")
    assert (chosen.label, state["first.weight"][0]) == (average, 1)
    named, _ = choose(found, lambda candidate: candidate.arrays, other, "file")
    assert named.arrays["first.weight"][0] == 2


def test_several_that_fit_equally_are_told_and_may_be_chosen() -> None:
    """By label, or by the full path in the file; the first is never taken silently."""
    content = {"model": {"cats": arrays(1), "dogs": arrays(2)}}
    found = find(name_values(content), [FORM], "file")

    def read(candidate: Any) -> float:
        return float(candidate.arrays["first.weight"][0])

    with pytest.raises(InputError, match=r"^file: expected one network; got 2 .* cats, dogs; choo"):
        choose(found, read, None, "file")
    assert choose(found, read, "dogs", "file")[1] == 2
    assert choose(found, read, "model.cats", "file")[1] == 1
    with pytest.raises(InputError, match="the network 'birds'; got one with cats, dogs; choose"):
        choose(found, read, "birds", "file")


def test_one_network_under_two_names_is_one() -> None:
    """Some programs keep a network in a module and once more beside it."""
    state = arrays()
    found = find(name_values({"net": state, "again": dict(state)}), [FORM], "file")
    assert [candidate.label for candidate in found] == ["net"]


def test_the_one_that_can_be_read_is_taken() -> None:
    """Of equal candidates; if none can be read, the message gives the first one's reason."""
    found = find(name_values([arrays(1), arrays(2)]), [FORM], "file")

    def read(candidate: Any, good: float = 2) -> float:
        value = float(candidate.arrays["first.weight"][0])
        if value != good:
            raise InputError(f"bad {value}")
        return value

    assert choose(found, read, None, "file")[1] == 2
    with pytest.raises(InputError, match=r"^bad 1\.0"):
        choose(found, lambda candidate: read(candidate, good=3), None, "file")


def test_what_stands_beside_is_found_in_the_network_or_around_it() -> None:
    """The nearest one wins."""
    content = {"average": 1, "model": {"average": 2, "g": arrays()}, "other": {"average": 3}}
    (found,) = find(name_values(content), [FORM], "file")
    assert (found.beside("average"), found.beside("nothing")) == (2, None)


def test_two_arrays_of_one_name_are_both_seen() -> None:
    """The second is reported as left over, not lost."""
    content = {"g": arrays(), "g.first": {"bias": np.zeros(1)}}
    (found,) = find(name_values(content), [FORM], "file")
    assert "first.bias (again)" not in found.arrays
    assert "g.first.bias (again)" in name_values(content).arrays


def test_more_networks_than_any_file_has_are_refused() -> None:
    """Each network costs a walk over all names, which a hostile file could exploit."""
    content = {f"n{index}.first.weight": np.full(1, index) for index in range(101)}
    with pytest.raises(InputError, match=r"^file: expected up to 100 networks in a file; got 101"):
        find(name_values(content), [FORM], "file")


def test_many_values_of_one_name_cost_little() -> None:
    """A hostile file can write one path in 2^dots ways."""
    content: dict[str, Any] = {"w": {"x": np.ones(1)}, "w.x": np.ones(1)}
    below = content
    for _ in range(20):
        content, below = {"a": content, "a.a": below}, content
    names = [name for name in name_values(content).leaves if " (again" in name]
    assert len(names) > 1000 and max(map(len, names)) < 100


def test_description_names_keys_classes_and_arrays() -> None:
    """The message for a file without a network contains them."""
    content = {"opts": Record("argparse.Namespace", (), {"a": 1}), "net": {"w": np.ones(1)}}
    got = describe(name_values(content))
    assert got == "a dict of opts, net; objects argparse.Namespace; 1 arrays, such as net.w"
    assert describe(name_values(module({}, "x.Net"))) == "an object x.Net; no arrays"
    assert describe(name_values((1, 2))) == "a tuple of 2; no arrays"
    many = describe(name_values(arrays(names=tuple(f"w{index}" for index in range(100)))))
    assert many.endswith("and 92 more; 100 arrays, such as w0, w12, w24, w36, w48, w60, w72, w84")


# A DCGAN, whose anchor may have any name before it.


def digest(content: Any) -> str:
    return params_lib.digest(dcgan.from_content(content, "file")[1])


CHAINS: dict[str, Callable[[Any], Any]] = {
    "without a name": lambda state: {key.removeprefix("main."): x for key, x in state.items()},
    "under another name": lambda state: {f"layers.{key[5:]}": x for key, x in state.items()},
    "checkpoint of both": lambda state: {
        "epoch": 5,
        "generator": state,
        "discriminator": discriminator(),
        "optimizerG": {"state": {}, "param_groups": []},
    },
    "list of both": lambda state: [discriminator(), state],
    "flat, of both": lambda state: (
        prefixed("generator.", state) | prefixed("discriminator.", discriminator())
    ),
    "compiled": lambda state: {"netG": prefixed("_orig_mod.module.", state)},
    "named unlike": lambda state: {"first": discriminator(), "second": state},
}


def discriminator() -> dict[str, np.ndarray]:
    shapes = {"main.0.weight": (4, 3, 4, 4), "main.2.weight": (8, 4, 4, 4)}
    return {key: np.ones(shape, np.float32) for key, shape in shapes.items()}


@pytest.mark.parametrize("chain", CHAINS)
def test_dcgan_is_found(chain: str) -> None:
    """It is told from its discriminator in the same file, which looks much like it."""
    assert digest(CHAINS[chain](dcgan_state())) == digest(dcgan_state())


def chain_of(state: Mapping[str, np.ndarray], last: str = "Tanh", **changes: Any) -> Record:
    """Returns a module with this state and the settings that PyTorch pickles."""
    modules: dict[str, Record] = {}
    for index in range(3 * 3 - 1):
        kind = ("ConvTranspose2d", "BatchNorm2d", "ReLU")[index % 3] if index < 7 else last
        part = {k.split(".")[2]: x for k, x in state.items() if k.startswith(f"main.{index}.")}
        said: dict[str, Any] = {"ConvTranspose2d": {"stride": (2, 2), "padding": (1, 1)}}.get(
            kind, {}
        )
        if index == 0:
            said = {"stride": (1, 1), "padding": (0, 0)}
        modules[str(index)] = module(part, f"torch.nn.modules.x.{kind}", **said)
    modules["3"].state.update(changes)
    groups = {"_parameters": {}, "_buffers": {}}
    return Record("torch.nn.modules.container.Sequential", (), groups | {"_modules": modules})


def test_pickled_dcgan_is_checked_by_what_it_says() -> None:
    """Another stride or activation makes another network with the same arrays."""
    state = dcgan_state()
    assert digest(chain_of(state)) == digest(state)
    whole = module({}, "__main__.Generator")
    whole.state["_modules"]["main"] = chain_of(state)
    assert digest([whole]) == digest(state)
    with pytest.raises(InputError, match="a module Sigmoid at 7 instead of Tanh"):
        digest(chain_of(state, last="Sigmoid"))
    with pytest.raises(InputError, match=r"ConvTranspose2d at 3 with stride=\(1, 1\), not"):
        digest(chain_of(state, stride=(1, 1)))


@pytest.mark.parametrize("name", ["label_emb.weight", "main.5.alpha", "attention.gamma"])
@pytest.mark.parametrize("prefix", ["", "module.", "generator."])
def test_arrays_beside_the_chain_of_a_dcgan_are_refused(name: str, prefix: str) -> None:
    """Without a label or an attention layer it would be another network."""
    state = dcgan_state() | {name: np.ones(3, np.float32)}
    with pytest.raises(InputError, match=rf"unexpected: {re.escape(name)} "):
        digest(prefixed(prefix, state))


def test_state_dict_of_a_foreign_class_is_a_state_dict() -> None:
    """A subclass of OrderedDict, or a program's own list class."""
    own = Record("mmcv.ConfigDict", entries=arrays(), is_known=False)
    (found,) = find(name_values(Record("a.List", items=[own])), [FORM], "file")
    assert_same(found.arrays, arrays())


def test_tensor_that_is_no_array_is_told() -> None:
    """A sparse tensor, for example, must not be replaced or dropped."""
    state = arrays() | {"first.bias": Record("torch.Tensor, sparse", (np.ones(2),))}
    found = find(name_values({"net": state, "opts": Record("argparse.Namespace")}), [FORM], "file")
    with pytest.raises(InputError, match=r"an array first\.bias; got an object torch\.Tensor, spa"):
        choose(found, lambda candidate: candidate.arrays, None, "file")
