"""Edits written back into files of other programs: what changes, and that nothing else does."""

import copy
import pathlib
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from navigan_jax import params as params_lib
from navigan_jax import testing
from navigan_jax.directions import Edit
from navigan_jax.editing.bake import bake
from navigan_jax.editing.edit import apply_edit
from navigan_jax.errors import InputError
from navigan_jax.generators.files import write_generator
from navigan_jax.generators.source_map import SourceMap, read_source_map
from tests.tools import crafting
from tests.tools.converting import arrays_of, named_arrays, read_nvidia, read_stylegan2
from tools.convert_weights.networks.stylegan2.reading import Options
from tools.convert_weights.readers.torch_file import read_torch

pytestmark = pytest.mark.golden

CASES = [
    "stylegan2_rosinality",  # a zip archive
    "navigan_generator",  # an old stream
    "stylegan2_ada_condclamp",
    "stylegan2_tf_resnet",
]
LAYERS = [
    "mapping/fc1/kernel",
    "synthesis/b8/conv0/kernel",
    "synthesis/b8/conv1/affine/kernel",
    "synthesis/b16/torgb/kernel",
]


class Converted:
    """A source file, and the generator file that it converts to."""

    def __init__(self, source: pathlib.Path, folder: pathlib.Path, **options: Any) -> None:
        self.source, self.folder = source, folder
        self.config, self.params, origin = read_stylegan2(source, Options(**options))
        path = folder / "generator.safetensors"
        write_generator(path, "stylegan2", self.config, self.params, origin)
        self.map: SourceMap = read_source_map(path)

    @property
    def layers(self) -> list[str]:
        """Returns some layers of each kind."""
        return [path for path in LAYERS if path in params_lib.flatten(self.params)]

    def edit(self, seed: int = 0, layers: Sequence[str] = ()) -> Edit:
        """Returns random changes as large as the weights, by default in layers of each kind."""
        layers = layers or self.layers
        random = np.random.RandomState(seed)
        shapes = {path: params_lib.get(self.params, path).shape for path in layers}
        return Edit(
            {path: random.standard_normal(shapes[path]).astype(np.float32) for path in layers}
        )

    def bake(self, edits: Any, name: str = "baked", **options: Any) -> "Converted":
        """Writes the edits into a copy of the source; returns the copy, converted."""
        out = self.folder / f"{name}{self.source.suffix}"
        bake(self.source, out, self.map, self.params, edits, **options)
        return Converted(out, self.folder)


def all_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns all arrays of the file by name."""
    if path.suffix == ".pkl":
        return {
            f"{name} {key}": array
            for name, network in read_nvidia(path).items()
            for key, array in arrays_of(network).items()
        }
    return named_arrays(read_torch(path))


def assert_same(got: Mapping[str, Any], want: Mapping[str, Any], but: Sequence[str] = ()) -> None:
    assert set(got) == set(want)
    for path in want.keys() - set(but):
        np.testing.assert_array_equal(got[path], want[path], err_msg=path)


@pytest.fixture(params=CASES)
def converted(request: Any, tmp_path: pathlib.Path) -> Converted:
    return Converted(testing.golden_case(request.param).path("checkpoint"), tmp_path)


def test_baked_file_is_the_source_but_for_the_edited_weights(converted: Converted) -> None:
    """1. Converted, it is θ + tξ. 2. Its size is the source's, and all bytes are the same but those
    of the edited weights and, in an archive, of their checksums. 3. All other arrays of the file,
    those of other networks too, have the same bits."""
    layers, edit = converted.layers, converted.edit()
    baked = converted.bake([(edit, 0.7)])
    want = params_lib.flatten(apply_edit(converted.params, edit, 0.7))
    got = params_lib.flatten(baked.params)
    assert_same(got, want, but=layers)
    for path in layers:
        np.testing.assert_allclose(got[path], want[path], rtol=3e-7, atol=1e-7)
    before, after = (np.fromfile(x.source, np.uint8) for x in (converted, baked))
    assert len(before) == len(after)
    weights = sum(want[path].size for path in layers)
    left, right = all_arrays(converted.source), all_arrays(baked.source)
    changed = [key for key in left if not np.array_equal(left[key], right[key])]
    assert sum(left[key].size for key in changed) == weights and len(changed) == len(layers)
    may_differ = np.zeros(len(before), bool)
    for key in changed:  # found by its content, and not by the map that was written by
        start = before.tobytes().find(left[key].tobytes())
        assert start >= 0, key
        may_differ[start : start + left[key].nbytes] = True
    checksums = [at for part in converted.map.checksums for at in part.offsets]
    assert np.count_nonzero(before != after) > 2 * weights
    different = np.flatnonzero((before != after) & ~may_differ)
    assert all(any(at <= place < at + 4 for at in checksums) for place in different)
    assert len(different) <= 2 * 4 * len(changed)
    if baked.source.suffix == ".pt" and converted.map.checksums:
        assert zipfile.ZipFile(baked.source).testzip() is None


def test_edit_and_its_opposite_give_the_source_back(converted: Converted) -> None:
    """The error is at most one rounding of the shifted weight and one of the result."""
    edits = [(converted.edit(seed, ["synthesis/b8/conv1/kernel"]), 0.3) for seed in (1, 2)]
    there = converted.bake(edits)
    back = there.bake([(edit, -shift) for edit, shift in edits], "back")
    for path, want in params_lib.flatten(converted.params).items():
        got = params_lib.get(back.params, path)
        largest = np.maximum(np.abs(want), np.abs(params_lib.get(there.params, path)))
        assert np.all(np.abs(got - want) <= np.spacing(largest)), path
    with pytest.raises(AssertionError):  # one of the two alone does not
        assert_same(*(params_lib.flatten(x.params) for x in (there, converted)))


def test_shift_of_zero_is_a_copy(converted: Converted) -> None:
    """Byte by byte."""
    baked = converted.bake([(converted.edit(), 0.0)])
    assert baked.source.read_bytes() == converted.source.read_bytes()


def test_other_networks_of_the_file_can_be_edited_too(tmp_path: pathlib.Path) -> None:
    """G, which was not converted, gets the same change as G_ema, or a change alone."""
    source = testing.golden_case("stylegan2_ada_condclamp").path("checkpoint")
    converted = Converted(source, tmp_path)
    edit = converted.edit()
    for networks in (["G"], ["G_ema", "G"]):
        out = tmp_path / "out.pkl"
        bake(source, out, converted.map, converted.params, [(edit, 1.0)], networks=networks)
        for network in ("G", "G_ema"):
            before, after = (
                read_stylegan2(path, Options(network=network))[1] for path in (source, out)
            )
            want = apply_edit(before, edit, 1.0) if network in networks else before
            for path, leaf in params_lib.flatten(after).items():
                np.testing.assert_allclose(
                    leaf, params_lib.get(want, path), rtol=3e-7, atol=1e-7, err_msg=path
                )
    with pytest.raises(InputError, match=r"got 'D'; allowed: G, G_ema;"):
        bake(source, out, converted.map, converted.params, [(edit, 1.0)], networks=["D"])


def golden_state() -> dict[str, np.ndarray]:
    return read_torch(testing.golden_case("stylegan2_rosinality").path("checkpoint"))["g_ema"]


def pickled_module(state: dict[str, Any]) -> Any:
    """Returns a module of an unknown class, with the pickled tensors of a state dict."""
    own, below = crafting.by_module(state)
    modules = {name: pickled_module(part) for name, part in below.items()}
    groups = {"training": True, "_parameters": own, "_buffers": {}, "_modules": modules}
    return crafting.Build(crafting.New(crafting.Global("model", "Layer")), groups)


def wrapped_file(wrapper: str) -> bytes:
    """Returns a file with the golden network in another wrapper or container."""
    state = golden_state()
    legacy = wrapper.startswith("old stream")
    if wrapper == "safetensors":
        return safetensors.numpy.save({f"g_ema.{key}": array for key, array in state.items()})
    content, memories = crafting.state_dict(state, legacy=legacy)
    if wrapper == "encoder":
        other = {"encoder.step": 3}
        content = {"state_dict": {f"decoder.{k}": v for k, v in content.items()} | other}
    elif wrapper.endswith("list"):
        content = [None, ({f"module._orig_mod.{k}": v for k, v in content.items()},)]
    else:
        content = {"args": {"size": 32}, "generator": pickled_module(content)}
    return (crafting.torch_stream if legacy else crafting.torch_zip)(content, memories)


@pytest.mark.parametrize("wrapper", ["encoder", "old stream, list", "module", "safetensors"])
def test_edits_are_written_into_whatever_wraps_the_network(
    wrapper: str, tmp_path: pathlib.Path
) -> None:
    """Converted, the baked file is θ + tξ; nothing but the edited weights and checksums changes."""
    source = tmp_path / "source.pt"
    source.write_bytes(wrapped_file(wrapper))
    converted = Converted(source, tmp_path)
    layers, edit = converted.layers, converted.edit()
    baked = converted.bake([(edit, 0.7)])
    want = params_lib.flatten(apply_edit(converted.params, edit, 0.7))
    got = params_lib.flatten(baked.params)
    for path in want.keys() - {"mapping/w_avg"}:  # the average w is made of the mapping
        np.testing.assert_allclose(got[path], want[path], rtol=3e-7, atol=1e-7, err_msg=path)
    before, after = (np.fromfile(x.source, np.uint8) for x in (converted, baked))
    assert len(before) == len(after)
    weights = sum(want[path].size for path in layers)
    assert 2 * weights < np.count_nonzero(before != after) <= 4 * weights + 8 * len(layers)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_weights_of_other_types_are_rounded_to_them(dtype: str, tmp_path: pathlib.Path) -> None:
    """The exact sum is rounded once; a shift that overflows the type is refused."""
    path = tmp_path / "state.pt"
    state = {key: array.astype(dtype) for key, array in golden_state().items()}
    path.write_bytes(crafting.state_dict_file(state))
    converted = Converted(path, tmp_path)
    layer = "synthesis/b8/conv1/kernel"
    edit = converted.edit(layers=[layer])
    baked = read_torch(converted.bake([(edit, 0.3)]).source)["convs.1.conv.weight"]
    exact = state["convs.1.conv.weight"].astype(np.float64)
    exact = exact + 0.3 * edit.deltas[layer].astype(np.float64).transpose(3, 2, 0, 1)[None]
    np.testing.assert_array_equal(baked, exact.astype(dtype))
    if dtype == "float16":
        with pytest.raises(InputError, match="expected edited weights that float16 can hold"):
            converted.bake([(edit, 1e6)])
        assert not (tmp_path / "never.pt").exists()


def file_of_views(transposed: Sequence[str] = (), shared: Sequence[str] = ()) -> bytes:
    """Returns a state dict in which some tensors are transposed views, or views of one storage."""
    content, memories = crafting.state_dict(golden_state())
    for index, (key, array) in enumerate(golden_state().items()):
        if key in transposed:
            memories[str(index)] = np.ascontiguousarray(array.T)
            stride = crafting.row_strides(array.shape[::-1])[::-1]
            memory = crafting.storage(str(index), "float32", array.size)
            content[key] = crafting.tensor(memory, array.shape, stride)
        if key in shared:
            content[key] = content[shared[0]]
    return crafting.torch_zip(content, memories)


def test_strided_weights_are_found(tmp_path: pathlib.Path) -> None:
    """Strides stay as channels_last saved them; the numbers change."""
    path = tmp_path / "state.pt"
    path.write_bytes(file_of_views(transposed=["convs.1.conv.weight"]))
    converted = Converted(path, tmp_path)
    edit = converted.edit(layers=["synthesis/b8/conv1/kernel"])
    baked = converted.bake([(edit, 1.0)])
    want = apply_edit(converted.params, edit, 1.0)
    assert_same(params_lib.flatten(baked.params), params_lib.flatten(want))


def test_weights_that_share_bytes_are_refused(tmp_path: pathlib.Path) -> None:
    """Changing one would change the other; other weights of the file can still be edited."""
    path = tmp_path / "state.pt"
    names = ["convs.0.activate.bias", "convs.1.activate.bias"]
    state = golden_state()
    assert state[names[0]].shape == state[names[1]].shape
    path.write_bytes(file_of_views(shared=names))
    converted = Converted(path, tmp_path)
    edit = converted.edit(layers=["synthesis/b8/conv1/bias"])
    with pytest.raises(InputError, match="expected edited weights with bytes of their own"):
        converted.bake([(edit, 1.0)])
    converted.bake([(converted.edit(), 1.0)])


def test_packed_weights_are_refused(tmp_path: pathlib.Path) -> None:
    """A compressed archive converts, and says why nothing can be written into it."""
    content, memories = crafting.state_dict(golden_state())
    members = {"archive/data.pkl": crafting.pickled(content)}
    members |= {f"archive/data/{key}": array.tobytes() for key, array in memories.items()}
    path = tmp_path / "packed.pt"
    path.write_bytes(crafting.zip_archive(members, zipfile.ZIP_DEFLATED))
    converted = Converted(path, tmp_path)
    with pytest.raises(InputError, match=r"expected the weights of state as plain bytes; got map"):
        converted.bake([(converted.edit(), 1.0)])


def test_bytes_kept_as_text_are_refused(tmp_path: pathlib.Path) -> None:
    """Pickles of protocol 2 store bytes as text."""
    networks = read_nvidia(testing.golden_case("stylegan2_tf_resnet").path("checkpoint"))
    path = tmp_path / "text.pkl"
    path.write_bytes(crafting.tensorflow_file(networks, as_text=True))
    converted = Converted(path, tmp_path)
    assert converted.map.networks == {"Gs": {}, "G": {}}
    with pytest.raises(InputError, match="stored as text"):
        converted.bake([(converted.edit(), 1.0)])
    path.write_bytes(crafting.tensorflow_file(networks))
    assert "synthesis/b8/conv0/kernel" in Converted(path, tmp_path).map.networks["G"]


def test_wrong_sources_are_refused(tmp_path: pathlib.Path) -> None:
    """No source, another file, and the source as its own output are refused."""
    source = tmp_path / "network.pt"
    source.write_bytes(testing.golden_case("navigan_generator").path("checkpoint").read_bytes())
    converted = Converted(source, tmp_path)
    edits = [(converted.edit(layers=LAYERS[:2]), 1.0)]
    arguments = (converted.map, converted.params, edits)
    with pytest.raises(InputError, match=r"got nothing; set config\.source"):
        bake(tmp_path / "none.pt", tmp_path / "out.pt", *arguments)
    with pytest.raises(InputError, match="got the source itself"):
        bake(source, source, *arguments)
    changed = bytearray(source.read_bytes())
    changed[-1] ^= 1
    (tmp_path / "other.pt").write_bytes(changed)
    with pytest.raises(InputError, match=f"SHA-256 {converted.map.sha256}; got"):
        bake(tmp_path / "other.pt", tmp_path / "out.pt", *arguments)
    other = copy.deepcopy(converted.params)
    other["mapping"]["fc1"]["kernel"] += 1
    with pytest.raises(InputError, match="expected the generator's weights at the places of map"):
        bake(source, tmp_path / "out.pt", converted.map, other, edits)
    assert not (tmp_path / "out.pt").exists()
