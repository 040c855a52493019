"""Training curves as a picture: loss, accuracy and shift error by step."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from navigan_jax.checkpoints import atomic_output

_INK, _MUTED, _RULE, _ACCENT = "#18181b", "#71717a", "#e4e4e7", "#d95d10"
_PANELS = (
    ("loss", "loss", "held_out_loss"),
    ("accuracy", "accuracy", "held_out_accuracy"),
    ("shift_error", "mean |t̂ − t|", "held_out_shift_error"),
)


def draw_curves(rows: Iterable[Mapping[str, Any]], chance: float) -> Figure:
    """Returns the figure of the rows of a metrics file.

    rows: with "step", and with "loss", "accuracy", "shift_error", "held_out_..." if measured.
    chance: the accuracy of guessing, drawn as a dotted line.
    """
    rows = list(rows)
    figure = Figure(figsize=(12, 3.6), dpi=120, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (name, label, held_out) in zip(figure.subplots(1, 3), _PANELS, strict=True):
        for key, style, what in ((name, "-", "training"), (held_out, "o-", "held out")):
            known = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
            if known:
                colour = _MUTED if key == name else _ACCENT
                axes.plot(*zip(*known, strict=True), style, color=colour, label=what, markersize=3)
        if name == "accuracy":
            axes.axhline(chance, color=_INK, linestyle=":", linewidth=1, label="chance")
            axes.set_ylim(0, 1.02)
        axes.set_xlabel("step", color=_MUTED)
        axes.set_title(label, color=_INK, fontsize=11)
        axes.grid(color=_RULE, linewidth=0.8)
        axes.tick_params(colors=_MUTED, labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        if axes.lines:
            axes.legend(frameon=False, fontsize=8, labelcolor=_MUTED)
    return figure


def write_curves(
    path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]], chance: float
) -> None:
    """Writes the figure as PNG, atomically. Raises: InputError as `atomic_output`."""
    figure = draw_curves(rows, chance)
    with atomic_output(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
