"""The spectrum as a picture: |λ| and residual of each direction, on logarithmic axes.

A residual r = ‖Hξ − λξ‖ / |λ| of a symmetric H means that an eigenvalue of H lies within
λ ± r·|λ|; the bars span that interval. Markers of negative eigenvalues are hollow. Values that are
0 or were not measured are left out, as a logarithmic axis has no place for them.
"""

import os
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from navigan_jax.checkpoints import atomic_output
from navigan_jax.showcase import base

_INK, _MUTED, _RULE, _ACCENT = "#18181b", "#71717a", "#e4e4e7", "#d95d10"
_ROOM = 2.0  # factor between the markers and the ends of the axis
_FEW_DECADES = 200.0  # an axis that spans less than this factor has ticks at twos and fives too
_HIDDEN_BAR = 0.05  # of |λ|: bars up to this length are hidden by their markers
_LOWEST_BAR = 1e-3  # of |λ|: bars end here, as 0 is minus infinity on this axis


def draw_spectrum(
    eigenvalues: Float[np.ndarray, "directions"],
    residuals: Float[np.ndarray, "directions"],
    provenance: Mapping[str, str],
) -> Figure:
    """Returns the figure. residuals: relative to |λ|.

    Raises: ValueError if both are empty or differ in length.
    """
    if eigenvalues.shape != residuals.shape or eigenvalues.ndim != 1 or not eigenvalues.size:
        raise ValueError(
            "spectrum: expected at least one eigenvalue and as many residuals; "
            f"got shapes {eigenvalues.shape} and {residuals.shape}"
        )
    figure = Figure(figsize=(9, 5.6), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(
        2, 1, sharex=True, height_ratios=(2.4, 1), gridspec_kw={"hspace": 0.1}
    )
    figure.subplots_adjust(left=0.1, right=0.97, top=0.86, bottom=0.1)
    index, sizes = np.arange(len(eigenvalues)), np.abs(eigenvalues)
    marker = float(np.clip(240 / len(index), 1.5, 6))
    shown = np.isfinite(sizes) & (sizes > 0)
    upper.plot(index[shown], sizes[shown], color=_RULE, linewidth=1, zorder=1)
    for is_negative, face, label in ((False, _INK, "λ > 0"), (True, "white", "λ < 0")):
        chosen = shown & ((eigenvalues < 0) == is_negative)
        if not chosen.any():
            continue
        reach = np.nan_to_num(residuals, nan=0.0, posinf=1.0)[chosen] * sizes[chosen]
        upper.errorbar(
            index[chosen],
            sizes[chosen],
            yerr=(np.minimum(reach, (1 - _LOWEST_BAR) * sizes[chosen]), reach),
            fmt="o",
            markersize=marker,
            markerfacecolor=face,
            markeredgecolor=_INK,
            ecolor=_ACCENT,
            elinewidth=1.2,
            capsize=min(marker, 3.0),
            label=label,
        )
    if shown.any():
        has_bars = (np.nan_to_num(residuals[shown], nan=0.0) > _HIDDEN_BAR).any()
        upper.legend(
            title="bars: ± residual" if has_bars else None,
            frameon=False,
            fontsize=9,
            title_fontproperties={"size": 9},
            labelcolor=_MUTED,
        ).get_title().set_color(_MUTED)
    known = np.isfinite(residuals) & (residuals > 0)
    lower.plot(index[known], residuals[known], "o", color=_ACCENT, markersize=marker)
    _style(upper, "|λ|", is_log=bool(shown.any()))
    _style(lower, "‖Hξ − λξ‖ / |λ|", is_log=bool(known.any()))
    for axes, values in ((upper, sizes[shown]), (lower, residuals[known])):
        if values.size:
            _label_log(axes, values)
    lower.set_xlabel("direction", color=_MUTED)
    lower.set_xlim(-0.5, len(index) - 0.5)
    lower.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.text(0.1, 0.935, "Spectrum", color=_INK, fontsize=16, fontweight="bold")
    figure.text(0.1, 0.89, base.describe(provenance), color=_MUTED, fontsize=10, parse_math=False)
    return figure


def _style(axes: Axes, label: str, *, is_log: bool) -> None:
    if is_log:
        axes.set_yscale("log")
    axes.set_ylabel(label, color=_MUTED)
    axes.grid(axis="y", color=_RULE, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_MUTED, which="both", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_RULE)


def _label_log(axes: Axes, values: Float[np.ndarray, "shown"]) -> None:
    """Sets labels, and a range that fits the markers, as long bars would squeeze them."""
    low, high = values.min() / _ROOM, values.max() * _ROOM
    axes.set_ylim(low, high)
    if high / low < _FEW_DECADES:
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: base.format_tick(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def write_spectrum(
    path: str | os.PathLike[str],
    eigenvalues: Float[np.ndarray, "directions"],
    residuals: Float[np.ndarray, "directions"],
    provenance: Mapping[str, str],
) -> None:
    """Writes the figure as PNG.

    Raises: as `draw_spectrum`; InputError if the file cannot be written.
    """
    figure = draw_spectrum(eigenvalues, residuals, provenance)
    with atomic_output(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
