"""StyleGAN2 by its definition, in NumPy: sample by sample, with one kernel per sample.

This slow and plain reference shares, folds and skips nothing.
"""

import numpy as np

# A network of 8x8 pixels without labels, and the options that give it labels.
CONFIG = {
    "z_dim": 5,
    "label_dim": 0,
    "label_width": 0,
    "labels": "embedded",
    "mapping_widths": [6, 7],
    "mapping_rate": 0.1,
    "channels": [5, 4],
    "image_channels": 2,
    "blocks": "skip",
    "resample_taps": [1.0, 3.0, 3.0, 1.0],
    "clamp": None,
}
LABELLED = {"label_dim": 3, "label_width": 4}


def by_definition(x, kernel, style, up, taps, demodulate, change=None):
    """Convolves with one kernel per sample: scaled by the style, normalised per output.

    x may hold several windows of each sample. change: of the kernel, [samples, *kernel].
    """
    side, _, inputs, _ = kernel.shape
    kernels = []
    for index, scales in enumerate(style):
        own = kernel if change is None else kernel + change[index]
        own = own * scales[None, None, :, None] / np.sqrt(inputs * side**2)
        if demodulate:
            own = own / np.sqrt(np.sum(own**2, axis=(0, 1, 2)) + 1e-8)
        kernels += [own] * (len(x) // len(style))
    pairs = zip(x, kernels, strict=True)
    return np.stack([doubled(*pair, taps) if up else correlated(*pair) for pair in pairs])


def correlated(image, kernel):
    side = len(kernel)
    padded = np.pad(image, ((side // 2, side // 2), (side // 2, side // 2), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(0, 1))
    return np.einsum("hwikl,klio->hwo", windows, kernel)


def doubled(image, kernel, taps):
    """A zero after each pixel, the padded filter and the reversed kernel, in one formula."""
    height, width, channels = image.shape
    inserted = np.zeros((2 * height, 2 * width, channels))
    inserted[::2, ::2] = image
    count = len(taps)
    pads = ((count - 1) // 2 + 2, (count - 2) // 2 + 1)
    padded = np.pad(inserted, (pads, pads, (0, 0)))
    weights = 4 * np.outer(taps, taps) / np.sum(taps) ** 2
    windows = np.lib.stride_tricks.sliding_window_view(padded, (count, count), axis=(0, 1))
    blurred = np.einsum("hwikl,kl->hwi", windows, weights[::-1, ::-1])
    windows = np.lib.stride_tricks.sliding_window_view(blurred, (3, 3), axis=(0, 1))
    return np.einsum("hwikl,klio->hwo", windows, kernel[::-1, ::-1])


def upsampled(image, taps):
    """A zero after each pixel, then the padded filter."""
    height, width, channels = image.shape
    inserted = np.zeros((2 * height, 2 * width, channels))
    inserted[::2, ::2] = image
    count = len(taps)
    pads = ((count + 1) // 2, (count - 2) // 2)
    padded = np.pad(inserted, (pads, pads, (0, 0)))
    weights = 4 * np.outer(taps, taps) / np.sum(taps) ** 2
    windows = np.lib.stride_tricks.sliding_window_view(padded, (count, count), axis=(0, 1))
    return np.einsum("hwikl,kl->hwi", windows, weights[::-1, ::-1])


def image_of(config, params, latent):
    """The image of one z, followed by a label if there are classes.

    config: keywords of the architecture, with noise "constant" or "none". params: its weights.
    """
    rows = _w_plus(config, params["mapping"], latent)
    blocks, synthesis, last = config["blocks"], params["synthesis"], len(config["channels"]) - 1
    image = residual = None
    for index in range(last + 1):
        block = synthesis[f"b{4 << index}"]
        if index == 0:
            x = block["const"]
        else:
            if blocks == "resnet":
                residual = correlated(x, block["skip"]["kernel"]) / np.sqrt(x.shape[-1])
                residual = np.sqrt(0.5) * upsampled(residual, config["resample_taps"])
            x = _styled(config, block["conv0"], x, rows[2 * index - 1], up=True)
        gain = np.sqrt(0.5) if residual is not None else 1.0
        x = _styled(config, block["conv1"], x, rows[2 * index], gain=gain)
        if residual is not None:
            x = x + residual
        if "torgb" in block:
            made = _to_rgb(config, block["torgb"], x, rows[2 * index + 1])
            image = made if image is None else made + upsampled(image, config["resample_taps"])
    return image


def _w_plus(config, mapping, latent):
    """The rows of w, truncated towards the average."""
    x, label = np.split(latent, [config["z_dim"]])
    if config["label_dim"]:
        made = label @ mapping["embed"]["kernel"]
        if config["labels"] == "embedded":
            made = made / np.sqrt(config["label_dim"]) + mapping["embed"]["bias"]
            x = np.concatenate([_normalised(x), _normalised(made)])
        else:
            x = _normalised(np.concatenate([x, made]))
    else:
        x = _normalised(x)
    rate = config["mapping_rate"]
    for index in range(len(config["mapping_widths"])):
        layer = mapping[f"fc{index}"]
        x = rate * (x @ layer["kernel"] / np.sqrt(len(x)) + layer["bias"])
        x = _activated(x)
    count = 2 * len(config["channels"])
    cut = count if config["truncation_cutoff"] is None else config["truncation_cutoff"]
    near = mapping["w_avg"] + config["truncation"] * (x - mapping["w_avg"])
    return [near if row < cut else x for row in range(count)]


def _normalised(x):
    return x / np.sqrt(np.mean(x**2) + 1e-8)


def _activated(x, gain=1.0, clamp=None):
    x = np.where(x < 0, 0.2 * x, x) * np.sqrt(2) * gain
    return x if clamp is None else np.clip(x, -clamp * gain, clamp * gain)


def _style(layer, w):
    return w @ layer["affine"]["kernel"] / np.sqrt(len(w)) + layer["affine"]["bias"]


def _styled(config, layer, x, w, *, up=False, gain=1.0):
    taps, style = config["resample_taps"], _style(layer, w)
    x = by_definition(x[None], layer["kernel"], style[None], up, taps, True)[0]
    if config["noise"] == "constant":
        x = x + layer["noise_strength"] * layer["noise"][..., None]
    return _activated(x + layer["bias"], gain, config["clamp"])


def _to_rgb(config, layer, x, w):
    taps, style = config["resample_taps"], _style(layer, w)
    image = by_definition(x[None], layer["kernel"], style[None], False, taps, False)[0]
    image = image + layer["bias"]
    return image if config["clamp"] is None else np.clip(image, -config["clamp"], config["clamp"])
