"""The stages of a StyleGAN2, and its editable weights with all their names."""

from typing import NamedTuple

from navigan_jax.generators.base import EditableLayer


class Step(NamedTuple):
    """A stage of the synthesis.

    block: its number; block 0 has 4x4 pixels. part: the layer's name in it. row: of w_plus.
    """

    block: int
    part: str
    row: int


def synthesis_steps(count: int, blocks: str) -> tuple[Step, ...]:
    """Returns the stages of a synthesis of `count` blocks; each block doubles the side."""
    steps = []
    for block in range(count):
        if block and blocks == "resnet":
            steps.append(Step(block, "skip", 2 * block - 1))
        if block:
            steps.append(Step(block, "conv0", 2 * block - 1))
        steps.append(Step(block, "conv1", 2 * block))
        if blocks == "skip" or block == count - 1:
            steps.append(Step(block, "torgb", 2 * block + 1))
    return tuple(steps)


def mapping_layers(
    z_dim: int, label_dim: int, label_width: int, widths: tuple[int, ...]
) -> tuple[EditableLayer, ...]:
    """Returns the editable weights of the mapping: its layers, and the label embedding if any."""
    inputs = (z_dim + label_width, *widths)
    layers = [
        EditableLayer(
            path=f"mapping/fc{index}/kernel",
            shape=shape,
            resolution=1,
            stage=index,
            original_name=f"style.{index + 1}",
            aliases=(f"style.{index + 1}.weight", f"mapping.fc{index}", f"mapping/Dense{index}"),
        )
        for index, shape in enumerate(zip(inputs, widths, strict=False))
    ]
    if label_dim:
        shape = (label_dim, label_width)
        layers.insert(0, EditableLayer("mapping/embed/kernel", shape, 1, 0, "mapping.embed"))
    return tuple(layers)


def synthesis_layers(
    mapping_widths: tuple[int, ...], channels: tuple[int, ...], image_channels: int, blocks: str
) -> tuple[EditableLayer, ...]:
    """Returns the editable weights of the synthesis: all convolutions and their style layers."""
    layers = []
    for stage, (block, part, _) in enumerate(
        synthesis_steps(len(channels), blocks), len(mapping_widths)
    ):
        resolution, name = 4 << block, _original_name(block, part)
        inputs = channels[block - 1 if part in ("skip", "conv0") else block]
        outputs = image_channels if part == "torgb" else channels[block]
        side = 3 if part in ("conv0", "conv1") else 1
        path = f"synthesis/b{resolution}/{part}"
        layers.append(
            EditableLayer(
                path=f"{path}/kernel",
                shape=(side, side, inputs, outputs),
                resolution=resolution,
                stage=stage,
                original_name=name,
                aliases=(f"{name}.conv.weight", *_nvidia_names(block, part)),
                # NaviGAN numbers the layers `convs`, which begin at 8x8 pixels.
                number=2 * block - 2 + int(part[-1]) if block and part.startswith("conv") else None,
            )
        )
        if part != "skip":
            layers.append(
                EditableLayer(
                    path=f"{path}/affine/kernel",
                    shape=(mapping_widths[-1], inputs),
                    resolution=resolution,
                    stage=stage,
                    original_name=f"{name}.modulation",
                    aliases=(
                        f"{name}.conv.modulation.weight",
                        f"{path}/affine",
                        *(f"{alias}.affine" for alias in _nvidia_names(block, part)[:2]),
                    ),
                )
            )
    return tuple(layers)


def _nvidia_names(block: int, part: str) -> tuple[str, ...]:
    """Returns the names of a layer in NVIDIA's PyTorch and TensorFlow programs."""
    side = 4 << block
    tensorflow = {
        "conv0": "Conv0_up",
        "conv1": "Conv1" if block else "Conv",
        "torgb": "ToRGB",
        "skip": "Skip",
    }[part]
    return f"b{side}.{part}", f"synthesis.b{side}.{part}", f"{side}x{side}/{tensorflow}"


def _original_name(block: int, part: str) -> str:
    """Returns the name in NaviGAN and the rosinality program; `skip` is only in NVIDIA's."""
    if block == 0:
        return {"conv1": "conv1", "torgb": "to_rgb1"}[part]
    return {
        "skip": f"b{4 << block}.skip",
        "conv0": f"convs.{2 * block - 2}",
        "conv1": f"convs.{2 * block - 1}",
        "torgb": f"to_rgbs.{block - 1}",
    }[part]
