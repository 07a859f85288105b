"""The results as pictures: bars beside the drivers alone, and curves as a store grows.

The same figures make the same file: nothing in it is drawn at random, and it carries no date.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.growth.works import Growth
from benchmarks.measure import Outcome
from benchmarks.report import NAMES, Run
from benchmarks.targets import TARGETS
from benchmarks.works import CORE, ORMS, OURS, RAW

BARS, CURVES = "results.svg", "growth.svg"
COLOURS = {OURS: "#0072b2", CORE: "#e69f00", ORMS: "#cc79a7"}
"""They are told apart by those who see few colours, too."""
MARK = "#d00000"
TARGET = "target"
WIDTH = 11.0
"""Inches."""

# The page is white, whatever is around the picture, and texts stay texts.
STYLE: Mapping[str, Any] = {
    "svg.hashsalt": "benchmarks",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9,
    "figure.facecolor": "white",
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def available() -> bool:
    """Tell whether pictures can be drawn."""
    return find_spec("matplotlib") is not None


def draw(run: Run, directory: Path) -> Mapping[str, str]:
    """Write the pictures for which there are figures; return what they show, by their names."""
    import matplotlib as mpl

    drawn: dict[str, str] = {}
    beside = [outcome for outcome in run.outcomes if outcome.baseline == RAW and _time_of(outcome, OURS)]
    style: Any = STYLE
    with mpl.rc_context(style), warnings.catch_warnings():
        # Whoever shows the picture has a font for its texts.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        if beside:
            _save(_bars(beside, run), directory / BARS)
            drawn[BARS] = "Times as multiples of the raw driver's, and the targets"
        if run.growths:
            _save(_curves(run.growths), directory / CURVES)
            drawn[CURVES] = "Times as the store grows"
    return drawn


def _save(figure: Any, path: Path) -> None:
    figure.savefig(path, metadata={"Date": None, "Creator": None})


def _figure(rows: int, columns: int, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure: Any = Figure(figsize=(WIDTH, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.subplots(rows, columns, squeeze=False, sharex=rows == 1, sharey=rows == 1)


def _bars(outcomes: Sequence[Outcome], run: Run) -> Any:
    works = list(dict.fromkeys(outcome.work for outcome in outcomes))
    backends = list(dict.fromkeys(outcome.backend for outcome in outcomes))
    figure, ((*axes,),) = _figure(1, len(backends), 0.42 * len(works) + 1.2)
    for axis, backend in zip(axes, backends, strict=True):
        of_backend = {outcome.work: outcome for outcome in outcomes if outcome.backend == backend}
        for place, (name, colour) in enumerate(COLOURS.items()):
            there = [(at, ratio) for at, work in enumerate(works) if (ratio := _time_of(of_backend.get(work), name))]
            heights = [at + 0.26 * (place - 1) for at, _ in there]
            # On a logarithmic axis a bar needs a beginning: the driver's own time.
            widths = [ratio - 1 for _, ratio in there]
            axis.barh(heights, widths, height=0.24, left=1, color=colour, label=name)
        marks = [(at, most) for at, work in enumerate(works) if (most := _target(work, backend, run))]
        axis.plot(
            [most for _, most in marks], [at - 0.26 for at, _ in marks], "|", color=MARK, ms=11, mew=2, label=TARGET
        )
        axis.set(title=NAMES[backend], xscale="log", xlabel="times the raw driver's time (median)")
        axis.set_xticks([1, 1.5, 2, 3, 4, 6, 8, 12, 16], ["1", "1.5", "2", "3", "4", "6", "8", "12", "16"])
        axis.minorticks_off()
        axis.grid(axis="x", color="#dddddd")
        axis.set_axisbelow(True)
    axes[0].set_yticks(range(len(works)), works)
    axes[0].invert_yaxis()
    handles, labels = axes[0].get_legend_handles_labels()
    # The mark comes first where lines come before bars.
    order = sorted(range(len(labels)), key=lambda at: labels[at] == TARGET)
    figure.legend(
        [handles[at] for at in order], [labels[at] for at in order], loc="outside upper center", ncols=4, frameon=False
    )
    return figure


def _curves(growths: Sequence[Growth]) -> Any:
    backends = list(dict.fromkeys(growth.outcome.backend for growth in growths))
    figure, ((*axes,),) = _figure(1, len(backends), 5.6)
    colours = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#000000", "#999999", "#b8a200")
    works = list(dict.fromkeys(growth.outcome.work for growth in growths))
    for axis, backend in zip(axes, backends, strict=True):
        for growth in growths:
            if growth.outcome.backend != backend:
                continue
            times = [line.seconds.middle * 1000 for line in growth.lines(OURS)]
            colour = colours[works.index(growth.outcome.work) % len(colours)]
            style = ":" if growth.finds_more else "-"
            axis.plot(growth.amounts, times, style, color=colour, marker="o", ms=4, label=growth.outcome.work)
        axis.set(title=NAMES[backend], xscale="log", yscale="log", xlabel="messages, events or tasks in the store")
        axis.xaxis.set_major_formatter("{x:,.0f}")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.grid(color="#dddddd")
        axis.set_axisbelow(True)
    axes[0].set_ylabel("ms (median)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _time_of(outcome: Outcome | None, name: str) -> float | None:
    lines = () if outcome is None else outcome.lines
    return next((line.ratio.middle for line in lines if line.name == name), None)


def _target(work: str, backend: str, run: Run) -> float | None:
    """Return how many times the driver's time a work may take, where that is how its target is told."""
    for target in TARGETS:
        result = run.results.get((target.work, backend))
        for limit in target.limits.get(backend, ()):
            if isinstance(result, Outcome) and result.work == work:
                return {"times": limit.value, "share": 1 / limit.value}.get(limit.figure)
    return None
