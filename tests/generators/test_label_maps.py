"""Label maps: made-up layouts, files in the forms of Cityscapes and pix2pixHD, and refusals."""

import pathlib
from collections.abc import Callable

import jax
import numpy as np
import pytest
from PIL import Image

from navigan_jax.errors import InputError
from navigan_jax.generators.pix2pixhd import layouts
from navigan_jax.generators.pix2pixhd.label_maps import LabelMaps
from navigan_jax.generators.pix2pixhd.map_files import read_label_maps

SPACE = LabelMaps(16, 32, 35)
KEY = jax.random.key(4)
LABELS = np.arange(8 * 16).reshape(8, 16) % 35
INSTANCES = LABELS * 1000 + 7


def test_layout_does_not_depend_on_how_many_are_drawn() -> None:
    many, few = np.asarray(SPACE.sample(KEY, 5)), np.asarray(SPACE.sample(KEY, 2))
    np.testing.assert_array_equal(many[:2], few)
    np.testing.assert_array_equal(SPACE.draw(KEY, 4), many[4:])
    assert not np.array_equal(many[0], many[1])


def test_layouts_hold_streets() -> None:
    """Sky above road, known labels, and instances of cars and persons; all whole numbers."""
    maps = np.asarray(LabelMaps(64, 128, 35).sample(KEY, 8))
    labels, instances = maps[..., 0], maps[..., 1]
    assert set(np.unique(labels)) <= {7, 8, 11, 17, 20, 21, 23, 24, 26}
    assert (labels[:, 0] == layouts.SKY).mean() > 0.4
    assert (labels[:, -1] == layouts.ROAD).mean() > 0.4
    np.testing.assert_array_equal(instances // np.where(instances >= 1000, 1000, 1), labels)
    assert (instances[labels == layouts.CAR] >= 26000).all()
    assert len(np.unique(instances[labels == layouts.CAR])) > 2


def test_fewer_labels_and_no_instances_give_smaller_latents() -> None:
    maps = np.asarray(LabelMaps(16, 32, 9, has_instances=False).sample(KEY, 2))
    assert maps.shape == (2, 16, 32, 1)
    assert maps.max() == 8
    with pytest.raises(InputError, match=r"expected 1, as a label map has no mean; got 0\.5"):
        SPACE.truncate(SPACE.draw(KEY, 0), 0.5)


def test_colours_are_those_of_the_dataset() -> None:
    colours = layouts.colour(np.array([[7, 26, 40]]))
    np.testing.assert_array_equal(colours[0, :2], [[128, 64, 128], [0, 0, 142]])
    assert len(layouts.NAMES) == 35


def _save(path: pathlib.Path, numbers: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = np.uint8 if numbers.max() < 256 else np.uint16
    Image.fromarray(numbers.astype(kind)).save(path)


def _cityscapes(folder: pathlib.Path) -> None:
    for index, town in enumerate(("aachen", "zurich")):
        _save(folder / town / f"{town}_gtFine_labelIds.png", (LABELS + index) % 35)
        _save(folder / town / f"{town}_gtFine_instanceIds.png", INSTANCES)
        _save(folder / town / f"{town}_gtFine_color.png", LABELS)


def _pix2pixhd(folder: pathlib.Path) -> None:
    for index in range(2):
        _save(folder / "test_label" / f"{index}.png", (LABELS + index) % 35)
        _save(folder / "test_inst" / f"{index}_i.png", INSTANCES)


def _npz(folder: pathlib.Path) -> None:
    labels = np.stack([LABELS, (LABELS + 1) % 35]).astype(np.uint8)
    np.savez(folder / "maps.npz", labels=labels, instances=np.stack([INSTANCES] * 2))


@pytest.mark.parametrize(
    ("make", "name"), [(_cityscapes, ""), (_pix2pixhd, ""), (_npz, "maps.npz")]
)
def test_files_become_latents(
    make: Callable[[pathlib.Path], None], name: str, tmp_path: pathlib.Path
) -> None:
    """In alphabetical order, resized to the nearest pixel, instance numbers exact."""
    make(tmp_path)
    values = read_label_maps(str(tmp_path / name), SPACE, 9).values
    assert values.shape == (2, 16, 32, 2)
    assert values.dtype == np.float32
    for index in range(2):
        doubled = ((LABELS + index) % 35).repeat(2, axis=0).repeat(2, axis=1)
        np.testing.assert_array_equal(values[index, ..., 0], doubled)
    np.testing.assert_array_equal(values[0, ::2, ::2, 1], INSTANCES)
    assert len(read_label_maps(str(tmp_path / name), SPACE, 1).values) == 1


def test_labels_alone_count_as_instances(tmp_path: pathlib.Path) -> None:
    _save(tmp_path / "a.png", LABELS)
    latents = read_label_maps(str(tmp_path), SPACE, 9)
    np.testing.assert_array_equal(latents.values[..., 0], latents.values[..., 1])
    assert "without instances: each label counts as one" in latents.told


def _broken(folder: pathlib.Path) -> None:
    (folder / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(30))


def _colours(folder: pathlib.Path) -> None:
    Image.fromarray(layouts.colour(LABELS)).save(folder / "a.png")


def _unequal(folder: pathlib.Path) -> None:
    _pix2pixhd(folder)
    _save(folder / "test_label" / "2.png", LABELS)


def _other_size(folder: pathlib.Path) -> None:
    _save(folder / "a_labelIds.png", LABELS)
    _save(folder / "a_instanceIds.png", INSTANCES[:4])


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (lambda folder: None, "expected label maps, such as .*got no file .png"),
        (_broken, r"a\.png: expected a picture .*cannot be read"),
        (_colours, r"a\.png: .*shape \[8, 16, 3\].*give label ids, not the colours"),
        (lambda folder: _save(folder / "a.png", LABELS + 221), r"labels 0 to 34.*; got 255; give"),
        (_unequal, "got 3 label maps and 2 instance maps"),
        (_other_size, "a_instanceIds.png: expected 8x16 pixels.*; got 4x16"),
    ],
)
def test_other_folders_are_refused(
    make: Callable[[pathlib.Path], None], pattern: str, tmp_path: pathlib.Path
) -> None:
    make(tmp_path)
    with pytest.raises(InputError, match=pattern):
        read_label_maps(str(tmp_path), SPACE, 9)


@pytest.mark.parametrize(
    ("arrays", "pattern"),
    [
        ({"labels": LABELS}, r"labels \[count, height, width\]; got \[8, 16\] of int64"),
        ({"labels": LABELS[None] / 2}, "got .*float64"),
        ({"labels": LABELS[None], "instances": LABELS}, r"instances \[1, 8, 16\], as labels"),
        ({"labels": LABELS[None] - 1}, "labels 0 to 34, .*; got -1"),
        ({"labels": LABELS[None], "instances": LABELS[None] + 2**25}, "numbers up to 16777216"),
    ],
)
def test_other_archives_are_refused(
    arrays: dict[str, np.ndarray], pattern: str, tmp_path: pathlib.Path
) -> None:
    np.savez(tmp_path / "maps.npz", **arrays)
    with pytest.raises(InputError, match=pattern):
        read_label_maps(str(tmp_path / "maps.npz"), SPACE, 9)
    with pytest.raises(InputError, match=r"expected a folder of label maps, or an \.npz"):
        read_label_maps(str(tmp_path / "nothing"), SPACE, 9)
