"""Gauges: changes in units of ranges, files, own functions, and what is refused."""

import functools
import json
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from navigan_jax import checkpoints
from navigan_jax import params as params_lib
from navigan_jax.errors import InputError
from navigan_jax.evaluation import gauge_network
from navigan_jax.evaluation.gauges import Factor, Gauges, change_of, read_gauges, write_gauges

FACTORS = (Factor("width", 2.0, 5.0), Factor("hue", -1.0, 3.0, is_circular=True), Factor("x", 0, 1))
CIRCULAR = tuple(factor.is_circular for factor in FACTORS)
SIZES = {"side": 8, "image_channels": 3, "widths": [5, 7], "squeezed": 2, "hidden": 6}
SOURCE = {"trained": "not at all"}

OWN = """
import numpy as np
from navigan_jax.evaluation.gauges import Factor, Gauges

FACTORS = (Factor("mean"), Factor("spread", 0, 1))

def good(images):
    return np.stack([images.mean((1, 2, 3)), images.std((1, 2, 3))], axis=1)

def failing(images):
    return images.no_such_thing

def make():
    return Gauges(FACTORS, good)

def dated():
    return Gauges(list(FACTORS), good, digest="of my weights")

def fails_later():
    return Gauges(FACTORS, failing)

def fails_at_once():
    return Gauges(FACTORS, unknown)

def nameless():
    return Gauges((Factor(""),), good)

def no_function():
    return Gauges(FACTORS, 5)

def another_type():
    return good

def text():
    return Gauges(FACTORS, lambda images: "bright")

def words():
    return Gauges(FACTORS, lambda images: np.array([["a", "b"]] * len(images)))

def narrow():
    return Gauges(FACTORS, lambda images: good(images)[:, :1])

def flat():
    return Gauges(FACTORS, lambda images: good(images)[0])

def nan():
    return Gauges(FACTORS, lambda images: good(images) * [np.nan, 1])
"""


def _network() -> gauge_network.GaugeNetwork:
    sizes = {**SIZES, "widths": tuple(SIZES["widths"])}
    return gauge_network.GaugeNetwork(**sizes, is_circular=CIRCULAR)


def _images(count: int, side: int = 8) -> np.ndarray:
    shape = (count, side, side, 3)
    return np.random.default_rng(3).uniform(-1, 1, shape).astype(np.float32)


@pytest.fixture(scope="module")
def params() -> dict[str, object]:
    fresh = jax.jit(functools.partial(gauge_network.init, network=_network()))
    return jax.tree.map(np.asarray, fresh(jax.random.key(1)))


@pytest.fixture(scope="module")
def written(params, tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("gauges") / "gauges.safetensors"
    write_gauges(path, FACTORS, SIZES, params, SOURCE)
    return str(path)


@pytest.fixture
def own(tmp_path: pathlib.Path) -> str:
    (tmp_path / "own.py").write_text(OWN)
    return str(tmp_path / "own.py")


def test_change_is_in_units_of_the_range_and_antisymmetric() -> None:
    """Circular ones take the shorter way round; a turn more changes nothing."""
    draws = np.random.default_rng(0).uniform(-1, 3, (2, 64, 3))
    change = change_of(FACTORS, draws[0], draws[1])
    np.testing.assert_allclose(change, -change_of(FACTORS, draws[1], draws[0]), atol=1e-12)
    np.testing.assert_allclose(change[:, 0], (draws[1] - draws[0])[:, 0] / 3, rtol=1e-12)
    assert (np.abs(change[:, 1]) <= 0.5).all()
    turned = change_of(FACTORS, draws[0], draws[1] + np.array([[0.0, 4.0, 0.0]]))
    np.testing.assert_allclose(turned[:, 1], change[:, 1], atol=1e-12)
    assert not np.allclose(turned[:, 1], (draws[1] + 4 - draws[0])[:, 1] / 4)


@pytest.mark.parametrize(
    ("after", "change"), [(2.9, -0.025), (-0.9, 0.025), (1.0, -0.5), (0.99, 0.4975)]
)
def test_change_of_a_circular_factor_wraps(after: float, change: float) -> None:
    """-1 and 3 are the same; half a turn is -1/2, not +1/2."""
    found = change_of(FACTORS, np.array([2.0, -1.0, 0.0]), np.array([2.0, after, 0.0]))
    np.testing.assert_allclose(found, [0, change, 0], atol=1e-12)


def test_change_without_a_range_keeps_the_unit() -> None:
    found = change_of([Factor("a")], np.array([[1.0], [5.0]]), np.array([[4.0], [5.0]]))
    np.testing.assert_array_equal(found, [[3.0], [0.0]])


def test_outputs_stand_for_shares_and_back() -> None:
    """`shares_of` undoes `targets_of`; uniform shares make targets of mean 0 and variance 1."""
    shares = np.random.default_rng(1).uniform(0, 1, (4096, 3)).astype(np.float32)
    targets = gauge_network.targets_of(jnp.asarray(shares), CIRCULAR)
    np.testing.assert_allclose(gauge_network.shares_of(targets, CIRCULAR), shares, atol=1e-6)
    assert targets.shape == (4096, 4)
    few = 4 / math.sqrt(len(shares))
    np.testing.assert_allclose(np.mean(targets, axis=0), np.zeros(4), atol=few)
    np.testing.assert_allclose(np.var(targets, axis=0), np.ones(4), atol=few)


def test_file_is_read_as_it_was_written(params, written: str) -> None:
    """The same factors and weights; readings are those of the network in the factors' units."""
    gauges = read_gauges(written)
    assert gauges.factors == FACTORS and gauges.names == ("width", "hue", "x")
    assert gauges.source == written
    arrays, metadata = checkpoints.read_arrays(written)
    assert params_lib.digest(params_lib.unflatten(arrays)) == params_lib.digest(params)
    assert json.loads(metadata["source"]) == SOURCE
    images = _images(5)
    program = jax.jit(functools.partial(gauge_network.read_shares, _network()))
    shares = np.asarray(program(params, images))
    expected = np.array([[2.0, -1.0, 0.0]]) + np.array([[3.0, 4.0, 1.0]]) * shares
    read = gauges.read(images)
    assert read.dtype == np.float32 and isinstance(read, np.ndarray)
    np.testing.assert_allclose(read, expected, atol=1e-5)
    assert np.std(read, axis=0).min() > 1e-3  # the images are told apart


def test_digest_is_of_all_that_readings_depend_on(params, written: str, tmp_path) -> None:
    digests = {read_gauges(written).digest}
    other = jax.tree.map(lambda leaf: leaf * 2, params)
    wider = (Factor("width", 2.0, 6.0), *FACTORS[1:])
    for factors, weights in ((FACTORS, other), (wider, params)):
        write_gauges(tmp_path / "other.safetensors", factors, SIZES, weights, SOURCE)
        digests.add(read_gauges(str(tmp_path / "other.safetensors")).digest)
    assert len(digests) == 3
    write_gauges(tmp_path / "other.safetensors", FACTORS, SIZES, params, {"another": "source"})
    assert read_gauges(str(tmp_path / "other.safetensors")).digest in digests


def test_readings_do_not_depend_on_the_batch(written: str) -> None:
    """Single images, parts of 64 and a remainder, NumPy and JAX arrays give the same numbers."""
    gauges, images = read_gauges(written), _images(66)
    whole = gauges.read(images)
    np.testing.assert_allclose(gauges.read(jnp.asarray(images)), whole, atol=1e-6)
    for index in (0, 63, 65):
        alone = gauges.read(images[index : index + 1])
        np.testing.assert_allclose(alone[0], whole[index], atol=1e-5)
        assert np.abs(alone[0] - whole[index - 1]).max() > 1e-3


def test_images_of_another_side_are_averages(written: str) -> None:
    """Each pixel four times reads nearly as the small image does; stripes of a pixel read as grey.

    Sampling single pixels instead would show the stripes as black or white.
    """
    gauges = read_gauges(written)
    rows = np.linspace(-1, 1, 8, dtype=np.float32)
    small = np.broadcast_to(rows[None, :, None, None], (1, 8, 8, 3)).copy()
    large = small.repeat(2, axis=1).repeat(2, axis=2)
    gap = np.abs(change_of(FACTORS, gauges.read(small), gauges.read(large))).max()
    other = np.abs(change_of(FACTORS, gauges.read(small), gauges.read(-large))).max()
    assert gap < 0.1 * other
    stripes = np.broadcast_to((-1.0) ** np.arange(24)[None, :, None, None], (1, 24, 24, 3))
    inner = gauge_network.resized(jnp.asarray(stripes, jnp.float32), 8)[:, 1:-1]
    assert np.abs(inner).max() < 0.2


@pytest.mark.parametrize(
    ("shape", "got"),
    [((1, 8, 9, 3), "8 x 9 pixels with 3"), ((1, 8, 8, 4), "8 x 8 pixels with 4")],
)
def test_other_images_are_refused(written: str, shape: tuple[int, ...], got: str) -> None:
    with pytest.raises(InputError, match=f"expected square images of 3 channels, .*got {got}"):
        read_gauges(written).read(np.zeros(shape, np.float32))


def test_values_that_are_no_numbers_are_told(written: str) -> None:
    """The message blames images that hold them."""
    images = np.full((1, 8, 8, 3), np.nan, np.float32)
    with pytest.raises(InputError, match="NaN or infinity for width, hue, x; the images hold"):
        read_gauges(written).read(images)
    with pytest.raises(ValueError, match="images are"):
        read_gauges(written).read(images[0])


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ((), "expected at least one factor"),
        (("width",), "got 'width'; write Factor"),
        ((Factor(""),), "got an empty one"),
        ((Factor(" "),), "got an empty one"),
        ((Factor("a\nb"),), r"got 'a\\nb'"),
        ((Factor("a" * 61),), "at most 60 characters; got 61 characters"),
        ((Factor(None),), "got a NoneType"),
        ((Factor("a"), Factor("a")), "got a more than once"),
        ((Factor("a", 1, 1),), "low < high for 'a', or none; got low = 1, high = 1"),
        ((Factor("a", 2, 1),), "got low = 2, high = 1"),
        ((Factor("a", 0),), "got low = 0, high = None"),
        ((Factor("a", 0, math.inf),), "got low = 0, high = inf"),
        ((Factor("a", math.nan, 1),), "got low = nan, high = 1"),
        ((Factor("a", False, True),), "got low = False, high = True"),
        ((Factor("a", "0", "1"),), "got low = '0', high = '1'"),
        ((Factor("a", is_circular=True),), "for 'a'; got a circular factor without one"),
    ],
)
def test_unsound_factors_are_refused(factors: tuple[Factor, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Gauges(factors, lambda images: images)


def test_sound_factors_are_taken() -> None:
    """NumPy's numbers too, and the longest name."""
    factors = [Factor("a" * 60, np.float32(0), np.int64(2)), Factor("Größe", -1.5, -1)]
    assert Gauges(factors, lambda images: images).factors == tuple(factors)


def _rewritten(written: str, path: pathlib.Path, **metadata: str) -> str:
    arrays, old = checkpoints.read_arrays(written)
    checkpoints.write_arrays(path, arrays, old | metadata)
    return str(path)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"format": "navigan_jax.generator"}, "expected a file of format navigan_jax.gauges"),
        ({"format_version": "2"}, "expected format version 1; got 2"),
        ({"digest": "0"}, "expected a network of digest 0"),
        ({"factors": "{}"}, "expected JSON under 'factors'"),
        ({"factors": '[{"title": "a"}]'}, "expected factors with name, low, high"),
        ({"factors": '["a"]'}, "expected factors with name, low, high"),
        ({"factors": '[{"name": "a", "low": 1, "high": 0}]'}, "expected a range with low < high"),
        ({"factors": '[{"name": "a"}]'}, "expected a range for each factor .*; got none for a"),
        ({"factors": '[{"name": "a", "low": 0, "high": 1}]'}, "expected the weights of this net"),
        ({"config": "{}"}, "expected the sizes side, "),
        ({"config": json.dumps(SIZES | {"side": 10})}, "the side a multiple of"),
        ({"config": json.dumps(SIZES | {"hidden": "6"})}, "expected the sizes"),
        ({"config": json.dumps(SIZES | {"hidden": 10**9})}, "expected the sizes"),
        ({"config": json.dumps(SIZES | {"widths": 5})}, "expected the sizes"),
        ({"config": json.dumps(SIZES | {"widths": []})}, "expected the sizes"),
        ({"config": json.dumps(SIZES | {"hidden": 7})}, "expected the weights of this network"),
    ],
)
def test_damaged_files_are_refused(written: str, tmp_path, metadata, message: str) -> None:
    path = _rewritten(written, tmp_path / "changed.safetensors", **metadata)
    with pytest.raises(InputError, match=message) as raised:
        read_gauges(path)
    assert str(raised.value).startswith(path)


def test_a_path_to_nothing_is_told_with_what_is_allowed(tmp_path) -> None:
    with pytest.raises(InputError, match=r"allowed: a file of .*\(my_gauge\.py:make\), or a name"):
        read_gauges(str(tmp_path / "no.safetensors"))


def test_nothing_unreadable_is_written(params, tmp_path) -> None:
    path = tmp_path / "no.safetensors"
    bad = jax.tree.map(lambda leaf: leaf * np.nan, params)
    for factors, weights, message in (
        (FACTORS, bad, "expected finite weights"),
        (FACTORS[:2], params, "expected the weights of this network"),
        ((*FACTORS[:2], Factor("x")), params, "expected a range for each factor"),
    ):
        with pytest.raises(InputError, match=message):
            write_gauges(path, factors, SIZES, weights, SOURCE)
    assert not path.exists()


def test_own_function_reads_what_it_reads(own: str) -> None:
    """It takes NumPy and JAX arrays; without a digest of its own it gets its file's."""
    images = _images(3)
    gauges = read_gauges(f"{own}:make")
    expected = np.stack([images.mean((1, 2, 3)), images.std((1, 2, 3))], axis=1)
    for each in (images, jnp.asarray(images)):
        read = gauges.read(each)
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, expected, rtol=1e-5)
    assert gauges.names == ("mean", "spread") and gauges.source == f"{own}:make"
    assert read_gauges(f"{own}:dated").digest == "of my weights"
    pathlib.Path(own).write_text(f"{OWN}\n# changed\n")
    assert read_gauges(f"{own}:make").digest != gauges.digest
    assert read_gauges(f"{own}:dated").digest == "of my weights"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails_at_once", r"got NameError: name 'unknown' .*, in own\.py, line \d+; correct it"),
        ("nameless", "gauges: expected a name for each factor"),
        ("no_function", r"gauges: expected a function read\(images\); got a int"),
        ("another_type", "expected a function that returns Gauges; got a function"),
        ("nothing", "expected a function nothing .*; got no such name"),
    ],
)
def test_own_function_that_makes_no_gauges_is_refused(own: str, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        read_gauges(f"{own}:{name}")
    assert str(raised.value).startswith(f"{own}:{name}: ")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails_later", r"got AttributeError: .*, in own\.py, line \d+; correct it there"),
        ("text", "expected readings as an array of numbers; got a str"),
        ("words", "expected readings as an array of numbers; got an array of <U1"),
        ("narrow", r"shape \(3, 2\), .*a column for each of mean, spread; got \(3, 1\)"),
        ("flat", r"got \(2,\)"),
        ("nan", "got NaN or infinity for mean; correct what read returns"),
    ],
)
def test_wrong_readings_are_refused(own: str, name: str, message: str) -> None:
    gauges = read_gauges(f"{own}:{name}")
    with pytest.raises(InputError, match=message) as raised:
        gauges.read(_images(3))
    assert str(raised.value).startswith(f"{own}:{name}: ")
