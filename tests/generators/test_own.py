"""Anybody's own generator: the laws of all generators hold, and what cannot work is refused."""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from navigan_jax import own_code
from navigan_jax import params as params_lib
from navigan_jax.errors import InputError, OptionError
from navigan_jax.generators import own
from navigan_jax.generators.files import read_generator
from navigan_jax.generators.own import OwnGenerator, own_generator
from navigan_jax.nn.layers import Factors
from navigan_jax.testing import assert_close

Z, WIDTH = 5, 6
Stage = Callable[[Any, Any], Any]


def _weights() -> dict[str, Any]:
    keys = iter(jax.random.split(jax.random.key(0), 3))
    return {
        "convs": [
            {"w": jax.random.normal(next(keys), (3, 3, WIDTH, WIDTH)) / 8},
            {"w": jax.random.normal(next(keys), (3, 3, WIDTH, 3)) / 8},
        ],
        "bias": jnp.ones(3) / 4,
        "dense": jax.random.normal(next(keys), (Z, 4 * 4 * WIDTH)) / 2,
        "steps": jnp.array(7),
    }


def _dense(params: Any, z: Any) -> Any:
    return nn.relu(z @ params["dense"]).reshape(-1, 4, 4, WIDTH)


def _conv(params: Any, number: int, x: Any) -> Any:
    kernel = params["convs"][number]["w"]
    return jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _first(params: Any, x: Any) -> Any:
    wide = jnp.repeat(jnp.repeat(x, 2, axis=1), 3, axis=2)
    return jax.jit(lambda params, x: nn.relu(_conv(params, 0, x)))(params, wide)


def _last(params: Any, x: Any) -> Any:
    return jnp.tanh(_conv(params, 1, x) + params["bias"][None, None, None])


CHAIN: tuple[Stage, ...] = (_dense, _first, _last)


def _whole(params: Any, z: Any) -> Any:
    for stage in CHAIN:
        z = stage(params, z)
    return z


@pytest.fixture(scope="module")
def chain() -> OwnGenerator:
    return own_generator(CHAIN, _weights(), z_dim=Z)


@pytest.fixture(scope="module")
def whole() -> OwnGenerator:
    return own_generator(_whole, _weights(), z_dim=Z)


def test_layers_are_found_in_the_order_in_which_they_are_read(chain: OwnGenerator) -> None:
    """Paths come from the tree; sides are those of outputs, also inside of another jit."""
    found = [
        (each.path, each.shape, each.resolution, each.stage) for each in chain.generator.layers
    ]
    assert found == [
        ("dense", (Z, 96), 1, 0),
        ("convs/0/w", (3, 3, WIDTH, WIDTH), 8, 1),
        ("convs/1/w", (3, 3, WIDTH, 3), 8, 2),
    ]
    assert chain.generator.image_shape == (8, 12, 3)


def test_without_stages_all_layers_belong_to_the_only_one(
    chain: OwnGenerator, whole: OwnGenerator
) -> None:
    """The images are the same."""
    expected = [dataclasses.replace(layer, stage=0) for layer in chain.generator.layers]
    assert list(whole.generator.layers) == expected
    z = chain.generator.sample_latents(jax.random.key(1), 2)
    images = [each.generator.synthesize(each.params, z) for each in (chain, whole)]
    assert_close(*images, 1e-6)
    assert_close(images[0], _whole(_weights(), z), 1e-6)


@pytest.mark.parametrize("name", ["dense", "convs/0/w", "convs/1/w"])
@pytest.mark.parametrize("form", ["dense", "factors"])
def test_own_weights_of_samples_equal_one_generator_for_each(
    chain: OwnGenerator, whole: OwnGenerator, name: str, form: str
) -> None:
    shape = params_lib.get(chain.params, name).shape
    random = np.random.RandomState(0)
    if form == "dense":
        change: Any = jnp.asarray(random.standard_normal((2, *shape)), jnp.float32)
        rows = change
    else:
        left, scale = random.standard_normal((*shape[:-1], 2)), random.standard_normal((2, 2))
        right = random.standard_normal((2, shape[-1]))
        change = Factors(*(jnp.asarray(each, jnp.float32) for each in (left, scale, right)))
        rows = np.einsum("...r,br,ro->b...o", left, scale, right).astype(np.float32)
    z = chain.generator.sample_latents(jax.random.key(1), 2)
    expected = jnp.concatenate(
        [
            whole.generator.synthesize(params_lib.add(whole.params, name, row), z[i : i + 1])
            for i, row in enumerate(rows)
        ]
    )
    for generator, params in (chain, whole):
        (layer,) = generator.find_layers([name])
        carry = generator.prefix(params, z, [layer])
        images = generator.suffix_of_changes(params, carry, [layer], {name: change})
        assert_close(images, expected, 1e-5)


class _Linen(nn.Module):
    @nn.compact
    def __call__(self, z: Any) -> Any:
        x = nn.ConvTranspose(4, (4, 4), padding="VALID", name="first")(z[:, None, None])
        x = nn.BatchNorm(use_running_average=True)(x)
        return nn.sigmoid(nn.ConvTranspose(1, (4, 4), (2, 2), name="last")(nn.relu(x)))


class _Nnx(nnx.Module):
    def __init__(self) -> None:
        self.dense = nnx.Linear(Z, 4 * 4 * 2, rngs=nnx.Rngs(0))
        self.conv = nnx.Conv(2, 3, (3, 3), rngs=nnx.Rngs(1))

    def __call__(self, z: Any) -> Any:
        return self.conv(nnx.relu(self.dense(z)).reshape(-1, 4, 4, 2))


def test_linen_module_takes_its_variables_or_its_params() -> None:
    """Black and white of its images are 0 and 1."""
    module = _Linen()
    variables = module.init(jax.random.key(0), jnp.zeros((1, Z)))
    made = own_generator(module, variables, z_dim=Z, image_range=(0, 1))
    assert [layer.path for layer in made.generator.layers] == ["first/kernel", "last/kernel"]
    assert "batch_stats" in made.params
    z = made.generator.sample_latents(jax.random.key(1), 2)
    images = made.generator.synthesize(made.params, z)
    assert_close(images, 2 * module.apply(variables, z) - 1, 1e-6)
    dense = nn.Sequential([nn.Dense(12), lambda x: x.reshape(-1, 2, 2, 3)])
    params = dense.init(jax.random.key(0), jnp.zeros((1, Z)))["params"]
    alone = own_generator(dense, params, z_dim=Z)
    assert_close(
        alone.generator.synthesize(alone.params, z), dense.apply({"params": params}, z), 1e-6
    )


def test_nnx_module_is_split_into_function_and_params(tmp_path: pathlib.Path) -> None:
    """Written parameters come back in the tree of the module."""
    graph, state = nnx.split(_Nnx())
    made = own_generator(lambda params, z: nnx.merge(graph, params)(z), state, z_dim=Z)
    assert [layer.path for layer in made.generator.layers] == ["dense/kernel", "conv/kernel"]
    own.write_params(tmp_path / "p.safetensors", made.params)
    back = own.read_params(tmp_path / "p.safetensors", state)
    jax.tree.map(np.testing.assert_array_equal, back, state)
    with pytest.raises(InputError, match=r"expected parameters like those given; got others"):
        own.read_params(tmp_path / "p.safetensors", {"dense": np.zeros(3, np.float32)})


def test_random_parameters_fit_the_network(chain: OwnGenerator) -> None:
    drawn = chain.generator.init(jax.random.key(0))
    assert not params_lib.describe_differences(drawn, chain.params)
    kinds = [jax.tree.map(lambda leaf: leaf.dtype.name, tree) for tree in (drawn, chain.params)]
    assert kinds[0] == kinds[1]


_COUNTER = iter(range(10**6))
REFUSED: dict[str, tuple[Any, str]] = {
    "channels first": (
        lambda params, z: _whole(params, z).transpose(0, 3, 1, 2),
        r"channels seem to come first; return images\.transpose",
    ),
    "no batch": (lambda params, z: _whole(params, z)[0], r"expected images \[batch, height"),
    "whole numbers": (lambda params, z: _whole(params, z).astype(int), "of floats; got int32"),
    "pair": (lambda params, z: (_whole(params, z), z), "expected one array of images; got tuple"),
    "five channels": (lambda params, z: jnp.tile(_whole(params, z), 2), r"channels; got 6"),
    "NaN": (lambda params, z: jnp.log(_whole(params, z)), "expected finite images; got NaN"),
    "0 to 255": (lambda params, z: 255 * _whole(params, z), r"values up to 2.*image_range"),
    "mean over the batch": (
        lambda params, z: _whole(params, z - z.mean(axis=0, keepdims=True)),
        "another image in a batch than alone; use stored statistics",
    ),
    "random numbers": (
        lambda params, z: _whole(params, z + next(_COUNTER)),
        "another image in a batch than alone",
    ),
    "weights as constants": (
        lambda params, z: _whole(_weights(), z) + params["bias"].mean(),
        "expected weights to edit.*got none among",
    ),
    "wrong sizes": (
        lambda params, z: _whole(params, z[:, 1:]),
        r"expected stage 0 of 1 to run on float32\[1, 5\].*got TypeError",
    ),
    "NumPy": (
        lambda params, z: np.asarray(z),
        "expected stage 0 of 1 to run .*jax.jit; got Tracer",
    ),
    "nothing": ((), "expected a network; got no function"),
}


@pytest.mark.parametrize(("network", "pattern"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_work_is_refused_with_the_reason(network: Any, pattern: str) -> None:
    with pytest.raises(InputError, match=rf"^mine: .*{pattern}"):
        own_generator(network, _weights(), z_dim=Z, name="mine")


@pytest.mark.parametrize(
    ("changes", "pattern"),
    [
        ({"z_dim": 0}, "expected z_dim, a positive whole number"),
        ({"z_dim": 2.0}, "expected z_dim, a positive whole number"),
        ({"image_range": (1, 0)}, "black below white"),
        ({"params": {**_weights(), "bad": jnp.array([jnp.nan])}}, "got NaN or infinity in bad"),
        ({"params": {**_weights(), "word": "a"}}, "arrays of real numbers; got word of type str"),
    ],
)
def test_wrong_arguments_are_refused(changes: dict[str, Any], pattern: str) -> None:
    arguments = {"network": _whole, "params": _weights(), "z_dim": Z, **changes}
    with pytest.raises(InputError, match=pattern):
        own_generator(**arguments)


FILE = """
import jax.numpy as jnp
from navigan_jax.generators.own import own_generator

def make():
    params = {"w": jnp.ones((6, 12))}
    return own_generator(
        lambda params, z: (z @ params["w"]).reshape(-1, 2, 2, 3) / 50, params,
        z_dim=2, label_dim=4, label_names=("cat", "dog", "owl", "elk"),
    )

def other():
    return 3

def fails():
    return own_generator(None, {}, z_dim=2)
"""


@pytest.fixture
def file(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "my_model_of_tests.py"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_function_in_a_file_is_a_generator(
    file: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So is one in a module that Python finds; a class is chosen by its name."""
    generator, params = read_generator(f"{file}:make", {"label": "owl", "truncation": 1.0})
    labels = np.asarray(generator.sample_latents(jax.random.key(0), 3))[:, 2:]
    np.testing.assert_array_equal(labels, np.tile([0, 0, 1, 0], (3, 1)))
    monkeypatch.syspath_prepend(str(file.parent))
    assert own_code.is_own_code("my_model_of_tests:make")
    _, again = read_generator("my_model_of_tests:make")
    assert params_lib.digest(again) == params_lib.digest(params)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("other", "expected a function that returns a generator; got a int"),
        ("fails", r"own: expected a network|TypeError"),
        ("none", "expected a function none in .*; got no such name"),
    ],
)
def test_file_without_a_generator_is_refused(file: pathlib.Path, name: str, pattern: str) -> None:
    with pytest.raises(InputError, match=pattern):
        read_generator(f"{file}:{name}")


def test_options_of_other_networks_are_refused(file: pathlib.Path) -> None:
    for options, pattern in (
        ({"truncation": 0.5}, "expected an option of one's own generator; got 0.5"),
        ({"label": "cow"}, r"expected a class of this generator; got 'cow'.*cat, dog, owl, elk"),
    ):
        with pytest.raises(OptionError, match=pattern):
            read_generator(f"{file}:make", options)


def test_module_that_is_not_there_is_refused() -> None:
    with pytest.raises(InputError, match="no_such_module_here; install it"):
        read_generator("no_such_module_here:make")
