"""The loss curves of a run as one PNG, drawn by matplotlib where it is installed.

Example: ``plot_losses({"teacher": history}, folder / "losses.png")`` is False without matplotlib.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recipelang.backend import Progress

__all__ = ["plot_losses"]


def plot_losses(histories: Mapping[str, Sequence[Progress]], path: Path) -> bool:
    """Draw the loss of every training by step; whether a picture was written."""
    curves = {name: list(history) for name, history in histories.items() if history}
    if not curves or importlib.util.find_spec("matplotlib") is None:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(8, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes: Any = figure.add_subplot()
    for name, history in curves.items():
        marker = "o" if len(history) < 3 else None
        axes.plot([p.step for p in history], [p.loss for p in history], label=name, marker=marker)
    axes.set_xlabel("optimiser step")
    axes.set_ylabel("loss (nats a token)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)
    return True
