"""Charts as SVG that stands inside a page: no script, no fonts fetched, colours from the page's light or dark theme."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from pipeline.core.readings import BoolArray, FloatArray, IntArray

# Drawn in these colours, shown in the page's: `svg` writes var(--name) in their place.
INK, SOFT, GRID, SIGNAL, OTHER, THIRD, ALARM, LABEL = (f"#0000{i:02x}" for i in range(0xA0, 0xA8))
NAMES = {INK: "ink", SOFT: "soft", GRID: "grid", SIGNAL: "signal", OTHER: "other", THIRD: "third"} | {
    ALARM: "alarm",
    LABEL: "label",
}
LINES = (SIGNAL, OTHER, THIRD, SOFT)
WIDTH = 9.6  # inches at 72 points: what a page of 960 pixels shows without scaling much
COLUMNS = 800  # of a line: more points than that are drawn as their lowest and highest
ENGINEERING = EngFormatter(sep="")  # 40k
STYLE = mpl.RcParams(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "foreshock",
        "font.family": "sans-serif",
        "font.size": 9,
        "text.color": INK,
        "axes.edgecolor": SOFT,
        "axes.labelcolor": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 9,
        "axes.titlelocation": "left",
        "axes.axisbelow": True,
        "axes.grid": True,
        "axes.grid.axis": "y",
        "grid.color": GRID,
        "grid.linewidth": 0.6,
        "xtick.color": SOFT,
        "ytick.color": SOFT,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "lines.linewidth": 1.1,
        "legend.frameon": False,
        "legend.fontsize": 8.5,
    }
)


@mpl.rc_context(STYLE)
def loss_curve(loss: FloatArray, measured_at: IntArray, validation: FloatArray, best_update: int) -> str:
    """Training loss by update, (updates,), held-out loss where it was measured, (measures,), and the update kept."""
    figure, axes = _figure(2.4)
    axes.plot(np.arange(1, len(loss) + 1), loss, color=SIGNAL, alpha=0.35, linewidth=0.8)
    axes.plot(np.arange(1, len(loss) + 1), _smoothed(loss), color=SIGNAL, label="fitted rows")
    axes.plot(measured_at, validation, color=OTHER, marker="o", markersize=3, label="held-out rows")
    axes.axvline(best_update, color=SOFT, linestyle=":", label=f"kept: update {best_update}")
    axes.set(xlabel="update", ylabel="loss", yscale="log" if (loss > 0).any() else "linear")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    _plain_numbers(axes)
    _legend(axes)
    return svg(figure, "Loss by update")


@mpl.rc_context(STYLE)
def forecasts(times: IntArray, actual: FloatArray, expected: Mapping[int, FloatArray], unit: str) -> str:
    """A stretch of one channel, (n,), and what had been forecast for each reading, by steps ahead."""
    figure, axes = _figure(2.2)
    axes.plot(actual, color=INK, linewidth=1.4, alpha=0.75, label="actual")
    for (steps, forecast), colour in zip(expected.items(), LINES, strict=False):
        axes.plot(forecast, color=colour, label=f"forecast {steps} step{'s' * (steps > 1)} before")
    axes.set_ylabel(unit, parse_math=False)
    _plain_numbers(axes)
    _rows_as_times(axes, times)
    _legend(axes)
    return svg(figure, "Forecast against actual")


@mpl.rc_context(STYLE)
def error_distribution(errors: FloatArray, scores: FloatArray, threshold: float) -> str:
    """Held-out one-step errors in robust deviations and the scores made of them, with the threshold."""
    figure = Figure(figsize=(WIDTH, 2.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    sizes = np.abs(errors[np.isfinite(errors)])
    usual = max(float(np.median(sizes)) if len(sizes) else 1.0, 1e-6)
    bins = np.geomspace(usual * 1e-2, max(float(sizes.max(initial=usual)), usual * 10) * 1.01, 60)
    left.hist(np.maximum(sizes, bins[0]), bins=list(bins), color=SIGNAL)
    left.set(
        xscale="log",
        yscale="log" if len(sizes) else "linear",
        xlabel="one-step error, robust deviations",
        ylabel="held-out readings",
    )
    rare = float(np.quantile(sizes, 0.999)) if len(sizes) else usual
    left.axvline(rare, color=SOFT, linestyle=":", label=f"99.9 %: {rare:.3g}")
    right.hist(scores, bins=60, color=SIGNAL)
    right.set(yscale="log" if len(scores) else "linear", xlabel="score")
    right.axvline(threshold, color=ALARM, linestyle="--", label=f"threshold {threshold:.2f}")
    for axes in (left, right):
        _legend(axes)
    return svg(figure, "Distribution of held-out errors and scores")


@mpl.rc_context(STYLE)
def error_bars(errors: Mapping[str, Mapping[int, float]]) -> str:
    """Mean error by forecaster and steps ahead, in groups of bars."""
    figure, axes = _figure(2.4)
    horizons = sorted({steps for by_steps in errors.values() for steps in by_steps})
    width = 0.8 / max(len(errors), 1)
    for i, (name, by_steps) in enumerate(errors.items()):
        place = np.arange(len(horizons)) + (i - (len(errors) - 1) / 2) * width
        heights = [by_steps.get(steps, float("nan")) for steps in horizons]
        bars = axes.bar(place, heights, width * 0.92, color=LINES[i % len(LINES)], label=name)
        axes.bar_label(bars, fmt="%.3g", fontsize=8, color=INK, padding=1)
    axes.set_xticks(range(len(horizons)), [f"{steps} step{'s' * (steps > 1)} ahead" for steps in horizons])
    axes.set_ylabel("mean squared error")
    axes.margins(y=0.15)
    _legend(axes)
    return svg(figure, "Forecast error against the baselines")


@mpl.rc_context(STYLE)
def replayed(
    times: IntArray,
    scores: FloatArray,
    alert: BoolArray,
    found: Sequence[tuple[int, int]],
    missed: Sequence[tuple[int, int]],
    threshold: float | None,
    signal: tuple[str, FloatArray] | None,
) -> str:
    """One replayed series: the signal if there is one, scores, alerts, and labelled windows by first and last row."""
    figure = Figure(figsize=(WIDTH, 3.2 if signal else 1.8), layout="constrained")
    heights = [1.2, 1.0] if signal else [1.0]
    panels = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)
    below: Axes = panels[-1, 0]
    if signal:
        above: Axes = panels[0, 0]
        _line(above, signal[1])
        above.set_ylabel(signal[0], parse_math=False)
        _plain_numbers(above)
        above.tick_params(bottom=False, labelbottom=False)
    _line(below, scores)
    below.set_ylabel("score")
    if threshold is not None:
        below.axhline(threshold, color=ALARM, linestyle="--", linewidth=0.9)
        if scores.max() > 6 * max(threshold, 1.0):
            below.set_yscale("symlog", linthresh=max(threshold, 1.0))
        _plain_numbers(below)
    edges = np.flatnonzero(np.diff(np.r_[False, alert, False])).reshape(-1, 2).tolist()
    for axes in panels[:, 0]:
        for windows, colour in ((found, LABEL), (missed, OTHER)):
            for first, last in windows:
                axes.axvspan(first, max(last, first + len(times) / 1000), color=colour, alpha=0.25, linewidth=0)
        for first, stop in edges:
            axes.axvline(first, color=ALARM, linewidth=0.8, alpha=0.8)
            axes.axvspan(first, max(stop, first + len(times) / 500), ymax=0.05, color=ALARM, linewidth=0)
    _rows_as_times(below, times)
    return svg(figure, "Signal, score, labels and alerts" if signal else "Score, labels and alerts")


def svg(figure: Figure, title: str) -> str:
    """The figure as an element of a page, which gives it its width and colours."""
    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    text = drawn.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"font-family: [^;]*; ", "", text)  # the page's
    text = re.sub(r' transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), text)  # finer than any screen
    text = re.sub(r' id="(?:figure|axes|patch|line2d|text|matplotlib|xtick|ytick|legend|PolyC|LineC)[^"]*"', "", text)
    opening = rf'<svg class="chart" viewBox="\1" role="img" aria-label="{title}">'
    text = re.sub(r'<svg[^>]*viewBox="([^"]*)"[^>]*>', opening, text)
    for colour, name in NAMES.items():
        text = text.replace(colour, f"var(--{name})")
    return re.sub(r"\n\s*", "\n", text).strip()


def _figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def _plain_numbers(axes: Axes) -> None:
    """A few numbers up the side, 0.4 and 40k rather than powers."""
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(_number))


def _number(value: float, _: int | None = None) -> str:
    return ENGINEERING(value) if abs(value) >= 1e4 else f"{value:g}"


def _line(axes: Axes, values: FloatArray) -> None:
    """One line; a long one as the lowest and highest value of each of COLUMNS stretches, so that no peak is lost."""
    stretch = -(-len(values) // COLUMNS)
    if stretch <= 2:
        axes.plot(values, color=SIGNAL, linewidth=0.9)
        return
    padded = np.r_[values, np.full(-len(values) % stretch, np.nan)].reshape(-1, stretch)
    known = ~np.isnan(padded).all(axis=1)
    low, high = np.full(len(padded), np.nan), np.full(len(padded), np.nan)
    low[known], high[known] = np.nanmin(padded[known], axis=1), np.nanmax(padded[known], axis=1)
    rows = np.repeat(np.arange(len(padded)) * stretch, 2)
    axes.plot(rows, np.stack([low, high], axis=1).ravel(), color=SIGNAL, linewidth=0.8)


def _rows_as_times(axes: Axes, times: IntArray) -> None:
    """Rows along the axis, for a file may step back in time, named by their time."""
    at = np.unique(np.linspace(0, len(times) - 1, 5).round().astype(int)).tolist()
    names = np.datetime_as_string(times[at].astype("datetime64[us]"), unit="m").tolist()
    shown = {row: name.replace("T", " ") for row, name in zip(at, names, strict=True)}
    axes.xaxis.set_major_locator(FixedLocator(at))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda row, _: shown.get(round(row), "")))
    axes.set_xlim(-0.5, len(times) - 0.5)
    first, *_, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")


def _legend(axes: Axes) -> None:
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2, handlelength=1.6)


def _smoothed(values: FloatArray) -> FloatArray:
    """Mean of the last 25 values."""
    total = np.cumsum(np.r_[0.0, values])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - 25, 0)
    mean: FloatArray = (total[last] - total[first]) / (last - first)
    return mean
