"""Tells by the names and shapes of its arrays which network a foreign file holds."""

import re
from collections.abc import Mapping

from tools.convert_weights.lpips_sources import net_of

Shapes = Mapping[str, tuple[int, ...]]

UNKNOWN = "unknown"

# Each architecture with patterns of which every one must match the end of some array's name. The
# first rule that holds is taken, so special cases come before general ones.
_RULES: Mapping[str, tuple[str, ...]] = {
    "NaviGAN training checkpoint, SVD directions": (r"conv\.direction_to_eigenvalues_delta",),
    "NaviGAN training checkpoint, directions in a basis": (r"conv\.direction_to_basis_coefs",),
    "NaviGAN latent deformator": (r"log_mat_half",),
    "StyleGAN3, NVIDIA PyTorch": (r"synthesis\.input\.freqs",),
    "StyleGAN2, NVIDIA PyTorch": (r"synthesis\.b4\.const", r"mapping\.fc0\.weight"),
    "StyleGAN1 or ProgGAN, NVIDIA TensorFlow": (r"ToRGB_lod0/weight",),
    "StyleGAN2, NVIDIA TensorFlow": (r"4x4/Const/const", r"mapping/Dense0/weight"),
    "StyleGAN2, rosinality": (r"input\.input", r"convs\.0\.conv\.weight", r"style\.1\.weight"),
    "LPIPS module, backbone and linear weights": (
        r"lin0\.model\.1\.weight",
        r"net\.slice1\.0\.weight",
    ),
    "LPIPS linear weights": (r"lin0\.model\.1\.weight",),
    "DCGAN discriminator": (r"main\.0\.weight", r"main\.2\.weight", r"main\.3\.running_mean"),
    "DCGAN generator": (r"main\.0\.weight", r"main\.1\.running_mean", r"main\.3\.weight"),
    "BigGAN, ajbrock": (r"shared\.weight", r"blocks\.0\.0\.conv1\.weight"),
    "BigGAN-deep, huggingface": (r"generator\.gen_z\.weight_orig",),
    "SNGAN of NaviGAN": (r"model\.2\.conv1\.weight", r"model\.2\.model\.3\.weight"),
    "ProgGAN of NaviGAN": (r"features\.0\.wscale\.scale", r"output\.wscale\.b"),
    "pix2pixHD local enhancer": (r"model1_1\.1\.weight",),
    "pix2pixHD global generator": (r"model\.1\.weight", r"model\.\d+\.conv_block\.1\.weight"),
}

_NETS = {
    "vgg": "torchvision vgg16",
    "alex": "torchvision alexnet",
    "squeeze": "torchvision squeezenet1_1",
}

# In these names of StyleGAN2 layers the number is the side of the layer's output.
_SIDE = re.compile(r"synthesis\.b(\d+)\.|(\d+)x\d+/")
_ROSINALITY_NOISE = re.compile(r"(?:.*[/.])?noises\.noise_\d+")
_DCGAN_KERNEL = re.compile(r"(?:.*[/.])?main\.(\d+)\.weight")


def guess(shapes: Shapes) -> str:
    """Returns the name of the architecture that has such arrays, or UNKNOWN."""
    for architecture, patterns in _RULES.items():
        if all(any(_ends_with(pattern, name) for name in shapes) for pattern in patterns):
            return architecture
    if (net := net_of(shapes)) is not None:
        return _NETS[net]
    if set(shapes) == {"linear.weight", "linear.bias"}:
        return "NaviGAN latent deformator"
    if set(shapes) == {"shift"} and len(shapes["shift"]) == 6:
        return "NaviGAN deformation, one shift of one layer"
    if set(shapes) == {"array"} and len(shapes["array"]) == 6:
        return "NaviGAN eigenvectors or basis of one layer"
    return UNKNOWN


def resolution(architecture: str, shapes: Shapes) -> int | None:
    """Returns the side of the generator's images where names or shapes tell it."""
    if architecture == "DCGAN generator":
        layers = [int(match[1]) for name in shapes if (match := _DCGAN_KERNEL.fullmatch(name))]
        return 4 * 2 ** (max(layers) // 3)
    if architecture == "StyleGAN2, rosinality":
        noises = [shapes[name] for name in shapes if _ROSINALITY_NOISE.fullmatch(name)]
        return max((shape[-1] for shape in noises if shape), default=None)
    if architecture.startswith("StyleGAN2"):
        found = [match for name in shapes if (match := _SIDE.search(name))]
        return max((int(match[1] or match[2]) for match in found), default=None)
    return None


def _ends_with(pattern: str, name: str) -> bool:
    return re.fullmatch(rf"(?:.*[/.])?{pattern}", name) is not None
