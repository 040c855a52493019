"""A folder in which the commands of the pages run: small files under the names the pages use."""

import hashlib
import io
import pathlib
from collections.abc import Mapping

import numpy as np
import pytest
from PIL import Image

from benchmarks.cars.train import SIZES as CARS
from navigan_jax import assets, testing
from navigan_jax.generators.files import make_generator, write_generator
from navigan_jax.perceptual import lpips
from tests.docs.reading import ROOT
from tests.tools.crafting import dcgan_state, resnet18_shapes, state_dict_file, zip_archive
from tools.convert_weights import download, known_networks
from tools.convert_weights.download import KNOWN_FILES, KnownFile

State = Mapping[str, np.ndarray]

# 16 px; main.3 has 512 weights, main.6 has 192: more than the directions asked for.
_FACES = {"z_dim": 5, "widths": (8, 4)}
# SqueezeNet 1.1 in place of VGG-16, which is twelve times as large.
NET = "squeeze"
# Where torchvision has its layers with weights.
_LAYERS = {0: "conv0"} | {i: f"fire{n}" for n, i in enumerate((3, 4, 6, 7, 9, 10, 11, 12))}


def _filled(shapes: Mapping[str, tuple[int, ...]]) -> bytes:
    return state_dict_file(testing.fill_state_dict(shapes, 0))


def _faces() -> bytes:
    return _filled({name: array.shape for name, array in dcgan_state(**_FACES).items()})


def _wheel(name: str, members: Mapping[str, bytes]) -> bytes:
    info = f"{name}.dist-info"
    return zip_archive({**members, f"{info}/METADATA": b"", f"{info}/RECORD": b""})


def _golden(case: str, role: str = "checkpoint") -> bytes:
    return testing.golden_case(case).path(role).read_bytes()


def _backbone() -> bytes:
    """Returns SqueezeNet as torchvision saves it."""
    kernels = lpips.expected_params(NET, linear=False)["backbone"]
    shapes: dict[str, tuple[int, ...]] = {}
    for index, layer in _LAYERS.items():
        parts = {"": kernels[layer]} if "kernel" in kernels[layer] else kernels[layer]
        for part, leaves in parts.items():
            prefix = f"features.{index}.{part}".rstrip(".")
            rows, columns, inputs, outputs = leaves["kernel"].shape
            shapes[f"{prefix}.weight"] = (outputs, inputs, rows, columns)
            shapes[f"{prefix}.bias"] = (outputs,)
    return _filled(shapes)


def _linear() -> bytes:
    widths = lpips.expected_params(NET, linear=True)["linear"]
    shapes = {f"lin{n}.model.1.weight": (1, *widths[n].shape, 1, 1) for n in widths}
    state = testing.fill_state_dict(shapes, 0)
    return state_dict_file({name: np.abs(array) for name, array in state.items()})


def _resnet18() -> bytes:
    """Returns ResNet-18 as torchvision saves it, with weights of zero."""
    shapes = resnet18_shapes()
    return state_dict_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()})


def _files() -> dict[str, bytes]:
    """Returns what a user of the pages has: files of one's own, by name."""
    trained = "navigan_trainer_weight_fixedbasis_lenet"
    return {
        "netG_epoch_24.pth": _faces(),
        "network.pkl": _golden("stylegan2_ada_orig"),
        "stylegan2-ffhq.pt": _golden("navigan_generator"),
        "eigenvectors_layer3_ffhq.pt": _golden("navigan_hessian", "eigenvectors"),
        "checkpoint.pt": _golden(trained),
        "projected.pt": state_dict_file({"latent": np.zeros((1, 4, 32), np.float32)}),
        "photo.jpg": _photograph(),
        "basis.pt": _golden(trained, "basis"),
        "deformation.pt": _golden("navigan_deformation_files", "hessian"),
        "G_ema.pth": _golden("biggan_ajbrock"),
        "pytorch_model.bin": _golden("biggan_hf_deep"),
        "latest_net_G.pth": _golden("pix2pixhd_global"),
        "100_celeb_hq_network-snapshot-010403.pth": _golden("navigan_proggan"),
    }


def _photograph() -> bytes:
    """Returns a picture of random colours, a little larger than images of the small generators."""
    colours = np.random.RandomState(0).randint(0, 256, (40, 50, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(colours).save(buffer, format="JPEG")
    return buffer.getvalue()


def _downloads() -> dict[str, bytes]:
    """Returns what the cache of downloads holds, by name."""
    weights = f"lpips/weights/v0.1/{NET}.pth"
    return {
        download.FACES_WHEEL: _wheel(
            "gan_face_generate-1.1.1", {"gan_face_generate/weights.tar": _faces()}
        ),
        download.LPIPS_WHEEL: _wheel("lpips-0.1.4", {weights: _linear()}),
        download.BACKBONES[NET]: _backbone(),
        download.RESNET18: _resnet18(),
    }


def _write_small_cars(path: pathlib.Path) -> None:
    """Writes a StyleGAN2 of 16 px in the place of the one of cars, which takes long to compile."""
    sizes = {**CARS, "channels": (8, 8, 8), "mapping_widths": (8,)}
    generator = make_generator("stylegan2", sizes)
    write_generator(path, "stylegan2", sizes, testing.draw_params(generator, 0), {})


def make_world(folder: pathlib.Path, patch: pytest.MonkeyPatch) -> None:
    """Fills a folder, makes it the current one and the home, and closes the network."""
    patch.syspath_prepend(folder)  # scripts of the pages import their neighbours
    _write_small_cars(folder / "small_cars.safetensors")
    patch.setitem(assets.GENERATORS, "cars", str(folder / "small_cars.safetensors"))
    (folder / "sn_resnet64").mkdir()
    (folder / "sn_resnet64" / "generator.pt").write_bytes(_golden("navigan_sngan64"))
    (folder / "config.json").write_bytes(_golden("biggan_hf_deep", "config"))
    for name, data in _files().items():
        (folder / name).write_bytes(data)
    cache = folder / ".cache" / "navigan_jax"
    networks = cache / "stylegan2"
    networks.mkdir(parents=True)
    for name, data in _downloads().items():
        (cache / name).write_bytes(data)
        known = KnownFile(hashlib.sha256(data).hexdigest(), url=f"file:///nowhere/{name}")
        patch.setitem(KNOWN_FILES, name, known)
    (networks / "ffhq-config-f.pkl").write_bytes(_golden("stylegan2_tf_orig"))
    patch.setattr(
        known_networks,
        "KNOWN_NETWORKS",
        {name: KnownFile("", url="file:///nowhere") for name in known_networks.KNOWN_NETWORKS},
    )
    for name in ("configs", "Makefile"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "docs").mkdir()
    patch.setenv("HOME", str(folder))
    patch.delenv("NAVIGAN_CACHE", raising=False)
    patch.chdir(folder)
