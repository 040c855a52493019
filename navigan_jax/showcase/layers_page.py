"""`layers.html`: one page that compares the leading directions of all layers of a generator.

The page is self-contained and has no script; its security policy admits only its own style.
"""

import base64
import dataclasses
import html
import io
import math
import os
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from navigan_jax.checkpoints import write_text
from navigan_jax.showcase import base
from navigan_jax.showcase.gallery import MARK, digest_of_text, part
from navigan_jax.showcase.grid import resize
from navigan_jax.showcase.maps import colour

_QUALITY = 88
_SMALLEST_SIDE = 96  # pixels; smaller images are enlarged by a whole factor
_GAP = 2
_WIDTH, _HEIGHT = 960, 260  # of the chart
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 12, 28


@dataclasses.dataclass(frozen=True, eq=False)
class LayerRecord:
    """The content of one layer's section and its row in the table.

    share: s as a share of the weights' norm, the median over directions and sides. half_areas: for
    each direction, the share of the pixels that holds half of the change. ends: s, the |t| of the
    outermost pictures, for t < 0 and t > 0. frames: of the leading directions at −s, original and
    +s. changes: their maps of mean squared change.
    """

    path: str
    original_name: str
    resolution: int
    weights: int
    eigenvalues: Float[np.ndarray, "directions"]
    share: float
    half_areas: Float[np.ndarray, "shown"]
    ends: Float[np.ndarray, "shown 2"]
    frames: Float[np.ndarray, "shown samples 3 height width channels"]
    changes: Float[np.ndarray, "shown height width"]
    names: Sequence[str]


def _hue(number: int, count: int) -> str:
    """Returns the layer's colour, from blue (early) to orange (late), of equal lightness."""
    return f"hsl({220 - 195 * number / max(1, count - 1):.0f} 62% 52%)"


def _chart(layers: Sequence[LayerRecord]) -> str:
    """Returns the eigenvalues as SVG, one line for each layer."""
    logs = [
        np.log10(np.maximum(np.abs(layer.eigenvalues.astype(np.float64)), 1e-30))
        for layer in layers
    ]
    low, high = min(x.min() for x in logs) - 0.1, max(x.max() for x in logs) + 0.1
    longest = max(len(x) for x in logs)

    def x(index: int) -> float:
        share = index / (longest - 1) if longest > 1 else 0.5
        return _LEFT + 6 + share * (_WIDTH - _LEFT - _RIGHT - 12)

    def y(value: float) -> float:
        return _TOP + (high - value) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    powers = range(math.ceil(low), math.floor(high) + 1)
    for power in list(powers) or [round((low + high) / 2, 1)]:
        line = f'x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(power):.1f}" y2="{y(power):.1f}"'
        parts.append(f'<line class="grid" {line}/>')
        name = base.format_tick(10.0**power)
        parts.append(
            f'<text x="{_LEFT - 8}" y="{y(power) + 4:.1f}" text-anchor="end">{name}</text>'
        )
    every = max(1, longest // 16)
    for index in range(0, longest, every):
        place = f'x="{x(index):.1f}" y="{_HEIGHT - 8}"'
        parts.append(f'<text {place} text-anchor="middle">{index}</text>')
    for number, (layer, values) in enumerate(zip(layers, logs, strict=True)):
        points = " ".join(f"{x(i):.1f},{y(v):.1f}" for i, v in enumerate(values))
        hue = _hue(number, len(layers))
        dots = "".join(
            f'<circle cx="{x(i):.1f}" cy="{y(v):.1f}" r="3" fill="{hue}"/>'
            for i, v in enumerate(values)
        )
        title = f"<title>{html.escape(layer.path)}</title>"
        parts.append(f'<g>{title}<polyline points="{points}" stroke="{hue}"/>{dots}</g>')
    names = ", ".join(html.escape(layer.path) for layer in layers)
    label = f'role="img" aria-label="Eigenvalues of {names}"'
    svg = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" {label}>{"".join(parts)}</svg>'
    return f'<div class="chart" tabindex="0" role="region" aria-label="Eigenvalues">{svg}</div>'


def _anchor(number: int) -> str:
    return f"layer-{number}"


def _table(layers: Sequence[LayerRecord]) -> str:
    rows = []
    for number, layer in enumerate(layers):
        area = float(np.median(layer.half_areas))
        dot = f'<circle cx="5" cy="5" r="5" fill="{_hue(number, len(layers))}"/>'
        swatch = f'<svg class="swatch" viewBox="0 0 10 10" aria-hidden="true">{dot}</svg>'
        name = f'<a href="#{_anchor(number)}">{html.escape(layer.path)}</a>'
        also = f'<span class="also">{html.escape(layer.original_name)}</span>'
        meter = f'<progress max="0.5" value="{area:.3f}"></progress>'
        cells = [
            f"{swatch}{name}{also}",
            f"{layer.resolution} px",
            f"{layer.weights:,}",
            base.format_number(float(layer.eigenvalues[0])),
            base.format_number(float(layer.eigenvalues[-1])),
            f"{layer.share:.1%}",
            f"{area:.0%} {meter}",
        ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return "\n".join(rows)


def _sheet(frames: UInt8[np.ndarray, "rows columns height width 3"]) -> UInt8[np.ndarray, "..."]:
    """Returns the images as one picture, with grey lines between them."""
    rows, columns, height, width, _ = frames.shape
    shape = (rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3)
    sheet = np.full(shape, 128, np.uint8)
    for row, column in np.ndindex(rows, columns):
        top, left = row * (height + _GAP), column * (width + _GAP)
        sheet[top : top + height, left : left + width] = frames[row, column]
    return sheet


def _picture(pixels: UInt8[np.ndarray, "height width 3"], alternative: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(
        buffer, format="JPEG", quality=_QUALITY, subsampling=0
    )
    text = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="{html.escape(alternative)}" src="data:image/jpeg;base64,{text}">'


def _enlarged(pixels: UInt8[np.ndarray, "... height width 3"]) -> UInt8[np.ndarray, "..."]:
    *batch, height, width, _ = pixels.shape
    size = base.display_size(height, width, smallest=_SMALLEST_SIDE, largest=128)
    flat = [np.asarray(resize(image, *size)) for image in pixels.reshape(-1, height, width, 3)]
    return np.stack(flat).reshape(*batch, *size, 3)


def _section(layer: LayerRecord, number: int) -> str:
    cards = []
    for k, name in enumerate(layer.names):
        sheet = _sheet(_enlarged(base.to_rgb(layer.frames[k])))
        frames = _picture(sheet, f"{name} at −s, original, +s")
        change = _picture(_enlarged(colour(layer.changes[k])), f"where {name} acts")
        cards.append(
            f'<article class="card"><header><h3><span class="name">{html.escape(name)}</span></h3>'
            f"<output>λ = {base.format_number(float(layer.eigenvalues[k]))}, "
            f"s = {base.describe_ends(layer.ends[k])}</output></header>"
            f'<div class="strip"><figure>{change}<figcaption>half the change on '
            f"{layer.half_areas[k]:.0%} of the pixels</figcaption></figure>"
            f'<figure>{frames}<figcaption class="signs"><span>−s</span><span>original</span>'
            "<span>+s</span></figcaption></figure></div></article>"
        )
    heading = (
        f'<h2><span class="layer">{html.escape(layer.path)}</span> <small>'
        f"{html.escape(layer.original_name)}, output {layer.resolution} px</small></h2>"
    )
    body = f'{heading}<div class="cards">{"".join(cards)}</div>'
    return f'<section id="{_anchor(number)}">{body}</section>'


def build_page(generator: str, layers: Sequence[LayerRecord], provenance: Mapping[str, str]) -> str:
    """Returns the page; equal input gives equal text. generator: its name on the page."""
    style = part("gallery.css") + part("layers_page.css")
    count = len(layers)
    values = {
        "style": style,
        "style_digest": digest_of_text(style),
        "generator": html.escape(generator),
        "summary": html.escape(
            f"{count} layer{'' if count == 1 else 's'} · {provenance['metric']} · "
            f"{provenance['latents']} latents"
        ),
        "chart": _chart(layers),
        "table": _table(layers),
        "sections": "\n".join(_section(layer, number) for number, layer in enumerate(layers)),
        "provenance": "\n".join(
            f"<div><dt>{html.escape(key)}</dt><dd>{html.escape(value)}</dd></div>"
            for key, value in provenance.items()
        ),
    }
    return MARK.sub(lambda mark: values[mark[1]], part("layers_page.html"))


def write_page(
    path: str | os.PathLike[str],
    generator: str,
    layers: Sequence[LayerRecord],
    provenance: Mapping[str, str],
) -> None:
    """Writes the page.

    Raises: InputError if the file cannot be written.
    """
    write_text(path, build_page(generator, layers, provenance))
