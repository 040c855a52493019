"""Generator files: reading returns what was written, and refuses by name what does not fit."""

import inspect
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import checkpoints, testing
from navigan_jax import params as params_lib
from navigan_jax.errors import InputError
from navigan_jax.generators import ARCHITECTURES
from navigan_jax.generators.files import make_generator, read_generator, write_generator

CONFIG = {"z_dim": 7, "widths": [6, 5], "image_channels": 3}
SOURCE = {"file": "faces.pth", "sha256": "0" * 64}


@pytest.fixture(scope="module")
def params():
    return testing.draw_params(make_generator("dcgan", CONFIG), 0)


@pytest.fixture
def written(params, tmp_path):
    path = tmp_path / "generator.safetensors"
    write_generator(path, "dcgan", CONFIG, params, SOURCE)
    return path


def rewrite(path, *, metadata=None, arrays=None, without=()):
    """Changes parts of the file without making them consistent."""
    old_arrays, old_metadata = checkpoints.read_arrays(path)
    new = {k: v for k, v in (old_arrays | (arrays or {})).items() if k not in without}
    new_metadata = {k: v for k, v in (old_metadata | (metadata or {})).items() if k not in without}
    checkpoints.write_arrays(path, new, new_metadata)


def test_read_returns_what_was_written(params, written):
    """The same generator and the same bits of the weights; the source stays in the file."""
    generator, got = read_generator(written)
    assert generator == make_generator("dcgan", CONFIG)
    assert params_lib.digest(got) == params_lib.digest(params)
    z = generator.sample_latents(jax.random.key(0), 2)
    np.testing.assert_array_equal(generator.synthesize(got, z), generator.synthesize(params, z))
    arrays, metadata = checkpoints.read_arrays(written)
    assert arrays.keys() == params_lib.flatten(params).keys()
    assert json.loads(metadata["source"]) == SOURCE
    assert metadata["digest"] == params_lib.digest(params)


@pytest.mark.parametrize("name", sorted(testing.TINY_CONFIGS))
def test_every_architecture_can_be_kept(name, tmp_path):
    """Sizes survive JSON, also tuples, None and fractions."""
    generator = testing.tiny_generators()[name]
    path = tmp_path / "generator.safetensors"
    params = testing.draw_params(generator, 0)
    write_generator(path, name, testing.TINY_CONFIGS[name], params, SOURCE)
    again, got = read_generator(path)
    assert again == generator
    assert params_lib.digest(got) == params_lib.digest(params)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        (
            {"format": "navigan_jax.perceptual"},
            r"format navigan_jax\.generator; got navigan_jax\.p",
        ),
        ({"format_version": "2"}, "format version 1; got 2"),
        ({"architecture": "vae"}, "architecture: .* a known one; got 'vae'; allowed: dcgan, "),
        (
            {"architecture": "stylegan2"},
            "stylegan2: expected its sizes; .* without label_dim, ",
        ),
        ({"config": "{"}, "JSON under 'config'"),
        ({"config": "[6, 5]"}, "JSON under 'config'.*a dict"),
        ({"config": "{}"}, r"dcgan: expected its sizes; got {}, without z_dim"),
        ({"config": json.dumps(CONFIG | {"depth": 3})}, "dcgan: .* of which depth is unknown"),
        ({"config": json.dumps(CONFIG | {"widths": 6})}, "dcgan: expected its sizes; got"),
        ({"config": json.dumps(CONFIG | {"z_dim": 0})}, "dcgan: expected positive whole numbers"),
        ({"digest": "0" * 64}, "expected weights of digest 0{64}; got .*changed or damaged"),
    ],
)
def test_wrong_metadata_are_refused(written, metadata, message):
    """Format, version, architecture, sizes and digest; the message begins with the file."""
    rewrite(written, metadata=metadata)
    with pytest.raises(InputError, match=message) as caught:
        read_generator(written)
    assert str(caught.value).startswith(f"{written}: ")


JUNK = [
    None, True, -1, 0, 1.5, float("nan"), float("inf"), 10**6, 10**12, 10**400, "abc", "", [], [[]],
    [1, "a"], [None], [-1], [10**12] * 3, [[1, 2]], [True], [0.5], {}, {"a": {"b": [{}]}}, [{}],
    [1] * 100_000, ["a"] * 70,
]  # fmt: skip


@pytest.mark.parametrize("key", sorted(CONFIG))
def test_junk_in_the_sizes_is_refused(written, key):
    """Values of every JSON type, huge and nested: each gives one short message."""
    for junk in JUNK:
        rewrite(written, metadata={"config": json.dumps(CONFIG | {key: junk})})
        with pytest.raises(InputError, match=rf"^{written}: .*expected") as caught:
            read_generator(written)
        assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    ("key", "junk"),
    [
        ("clamp", 10**12),
        ("mapping_rate", float("nan")),
        ("channels", [5] * 1000),
        ("image_channels", 10**30),
    ],
)
def test_junk_in_other_sizes_is_refused(key, junk):
    """JAX would fail on these only when it draws the weights."""
    with pytest.raises(InputError, match=rf"stylegan2: expected numbers below .*got {key} = "):
        make_generator("stylegan2", {**testing.TINY_CONFIGS["stylegan2"], key: junk})


@pytest.mark.parametrize(
    "architecture",
    [
        name
        for name, make in sorted(ARCHITECTURES.items())
        if "image_channels" in inspect.signature(make).parameters
    ],
)
def test_images_that_cannot_be_shown_are_refused(architecture, tmp_path):
    """Nothing is written, so no task starts that cannot make a picture.

    The number of channels of the other architectures is fixed.
    """
    config = {**testing.TINY_CONFIGS[architecture], "image_channels": 5}
    path = tmp_path / "five.safetensors"
    with pytest.raises(InputError, match=rf"five.safetensors: {architecture}: .*channels; got 5, "):
        write_generator(path, architecture, config, {}, {})
    assert not path.exists()


@pytest.mark.parametrize("nested", ["[" * 100_000, '{"a":' * 100_000, "{" * 10 + "}" * 9, "NaN"])
def test_metadata_that_are_no_json_are_refused(written, nested):
    """This includes JSON that is nested too deeply for a parser."""
    rewrite(written, metadata={"config": nested})
    with pytest.raises(InputError, match=r"JSON under 'config'") as caught:
        read_generator(written)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize("key", ["format", "format_version", "architecture", "config", "digest"])
def test_missing_metadata_are_refused(written, key):
    """None of the entries has a default."""
    rewrite(written, without=[key])
    with pytest.raises(InputError, match=rf"^{written}: "):
        read_generator(written)


def test_weights_that_do_not_fit_are_listed(written):
    """Missing and unexpected arrays and wrong shapes, each with its path."""
    arrays = {"conv1/kernel": np.zeros((3, 3, 6, 5)), "conv9/kernel": np.zeros((4, 4))}
    rewrite(written, arrays=arrays, without=["norm0/mean"])
    with pytest.raises(InputError, match=r"of this dcgan; got other arrays; convert") as caught:
        read_generator(written)
    assert str(caught.value).splitlines()[1:] == [
        "  missing norm0/mean (6,)",
        "  unexpected conv9/kernel (4, 4)",
        "  conv1/kernel: expected shape (4, 4, 6, 5), got (3, 3, 6, 5)",
    ]


def test_weights_of_another_type_are_refused(written):
    """Integers have no derivatives, and other widths would change the bits of directions."""
    rewrite(written, arrays={"conv1/kernel": np.ones((4, 4, 6, 5), np.int32)})
    with pytest.raises(InputError, match=r"of float32; got conv1/kernel of int32; convert them"):
        read_generator(written)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(params, written, bad):
    """When read and when written; an existing file is not overwritten."""
    kernel = np.array(params["conv1"]["kernel"])
    kernel[0, 1, 2, 3] = bad
    before = written.read_bytes()
    message = r"expected finite weights; got NaN or infinity in conv1/kernel; .*take another"
    with pytest.raises(InputError, match=message):
        changed = params_lib.replace(params, "conv1/kernel", kernel)
        write_generator(written, "dcgan", CONFIG, changed, SOURCE)
    assert written.read_bytes() == before
    rewrite(written, arrays={"conv1/kernel": kernel})
    with pytest.raises(InputError, match=message):
        read_generator(written)


def test_changed_weight_is_refused(params, written):
    """The last bit of one number changes the digest."""
    bias = np.array(params["norm0"]["bias"])
    bias[3] = np.nextafter(bias[3], np.float32(9))
    rewrite(written, arrays={"norm0/bias": bias})
    with pytest.raises(InputError, match=r"digest .*changed or damaged: convert it anew"):
        read_generator(written)


def test_nothing_unreadable_is_written(params, tmp_path):
    """Weights of other sizes and unknown architectures are refused before a file appears."""
    path = tmp_path / "folder" / "generator.safetensors"
    for architecture, config, message in (
        ("dcgan", CONFIG | {"widths": [6, 4]}, r"conv1/kernel: expected shape \(4, 4, 6, 4\)"),
        ("dcgan", CONFIG | {"widths": []}, "expected positive whole numbers"),
        ("vae", CONFIG, "got 'vae'; allowed: dcgan, "),
    ):
        with pytest.raises(InputError, match=message):
            write_generator(path, architecture, config, params, SOURCE)
    assert not path.parent.exists()


def test_parameters_may_be_jax_arrays(params, tmp_path):
    """JAX and NumPy arrays give the same file."""
    path = tmp_path / "generator.safetensors"
    write_generator(path, "dcgan", CONFIG, jax.tree.map(jnp.asarray, params), SOURCE)
    assert params_lib.digest(read_generator(path)[1]) == params_lib.digest(params)


def test_file_of_pytorch_is_refused_with_the_command_that_converts_it(tmp_path):
    """The content decides, not the file's extension."""
    for name in ("netG.pth", "netG"):
        path = tmp_path / name
        path.write_bytes(b"PK\x03\x04" + bytes(99))
        command = f"python -m tools.convert_weights KIND {path} --out FILE.safetensors"
        with pytest.raises(InputError, match=f"{name}: expected a whole safetensors.*{command}"):
            read_generator(path)


def test_missing_file_is_told(tmp_path):
    """The message names the path."""
    with pytest.raises(InputError, match=r"absent\.safetensors: expected a file; got nothing"):
        read_generator(tmp_path / "absent.safetensors")
