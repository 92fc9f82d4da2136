"""The picture of docs/matrix.md: runs that went on under another engine, beside the undisturbed one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FLOOR = 1e-9
"""Equal losses are drawn here, since a logarithm has no zero."""


@dataclass(frozen=True)
class Curve:
    """A run that moved: the step at which its second engine took over, and the loss of each step."""

    start: int
    losses: Mapping[int, float]


def draw_moves(undisturbed: Mapping[int, float], moved: Mapping[str, Curve], picture: Path) -> None:
    """Losses of every step above; below, how far each moved run is from the undisturbed one, relatively.

    A moved run is drawn from the step at which its second engine took over, as far as both runs went.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5))
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    above.plot(list(undisturbed), list(undisturbed.values()), color="black", label="plain, undisturbed")
    for number, (name, curve) in enumerate(moved.items()):
        steps = [step for step in sorted(undisturbed.keys() & curve.losses.keys()) if step >= curve.start]
        pairs = [(curve.losses[step], undisturbed[step]) for step in steps]
        style = {"marker": "ovs^Dx+"[number % 7], "color": f"C{number}", "fillstyle": "none", "label": name}
        above.plot(steps, [mine for mine, _ in pairs], linestyle="none", **style)
        below.plot(steps, [max(abs(mine - whole) / abs(whole), FLOOR) for mine, whole in pairs], linewidth=0.7, **style)
    above.set_ylabel("loss")
    above.legend(fontsize="small", frameon=False)
    below.set(yscale="log", xlabel="step", ylabel=f"relative difference\n({FLOOR:.0e}: none)")
    below.set_xticks(list(undisturbed)[::2])
    for axes in (above, below):
        axes.grid(alpha=0.3)
    figure.tight_layout()
    figure.savefig(picture, dpi=110)
