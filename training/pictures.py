"""Charts of a training and of an evaluation, each an SVG element for a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from pipeline.core.readings import BoolArray, FloatArray, IntArray
from training.drawing import (
    ALARM,
    INK,
    LABEL,
    LINES,
    OTHER,
    SIGNAL,
    SOFT,
    STYLE,
    WIDTH,
    corridor,
    legend,
    line,
    plain_numbers,
    rows_as_times,
    svg,
    wide_figure,
)

Span = tuple[int, int]  # first and last row, inclusive


@dataclass(frozen=True, slots=True, eq=False)
class Course:
    """One channel as it went and as it had been expected to, (n,) each, in its unit."""

    channel: str
    values: FloatArray
    expected: FloatArray  # NaN where there was no forecast
    band: FloatArray  # half width of the usual error


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """What a picture of a replay shows: all rows of a series, or some."""

    times: IntArray  # (n,) µs UTC
    scores: FloatArray  # (n,)
    alert: BoolArray  # (n,)
    found: Sequence[Span]  # labelled windows
    missed: Sequence[Span]
    threshold: float | None
    courses: Sequence[Course]  # of the channels to be shown


@mpl.rc_context(STYLE)
def loss_curve(loss: FloatArray, measured_at: IntArray, validation: FloatArray, best_update: int) -> str:
    """Training loss by update, (updates,), held-out loss where it was measured, (measures,), and the update kept."""
    figure, axes = wide_figure(2.4)
    axes.plot(np.arange(1, len(loss) + 1), loss, color=SIGNAL, alpha=0.35, linewidth=0.8)
    axes.plot(np.arange(1, len(loss) + 1), _smoothed(loss), color=SIGNAL, label="fitted rows")
    axes.plot(measured_at, validation, color=OTHER, marker="o", markersize=3, label="held-out rows")
    axes.axvline(best_update, color=SOFT, linestyle=":", label=f"kept: update {best_update}")
    axes.set(xlabel="update", ylabel="loss", yscale="log" if (loss > 0).any() else "linear")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    plain_numbers(axes)
    legend(axes)
    return svg(figure, "Loss by update")


@mpl.rc_context(STYLE)
def forecasts(times: IntArray, actual: FloatArray, expected: Mapping[int, FloatArray], unit: str) -> str:
    """A stretch of one channel, (n,), and what had been forecast for each reading, by steps ahead."""
    figure, axes = wide_figure(2.2)
    axes.plot(actual, color=INK, linewidth=1.4, alpha=0.75, label="actual")
    for (steps, forecast), colour in zip(expected.items(), LINES, strict=False):
        axes.plot(forecast, color=colour, label=f"forecast {steps} step{'s' * (steps > 1)} before")
    axes.set_ylabel(unit, parse_math=False)
    plain_numbers(axes)
    rows_as_times(axes, times)
    legend(axes)
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
        legend(axes)
    return svg(figure, "Distribution of held-out errors and scores")


@mpl.rc_context(STYLE)
def error_bars(errors: Mapping[str, Mapping[int, float]]) -> str:
    """Mean error by forecaster and steps ahead, in groups of bars."""
    figure, axes = wide_figure(2.4)
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
    legend(axes)
    return svg(figure, "Forecast error against the baselines")


@mpl.rc_context(STYLE)
def replayed(view: View, channel_height: float = 1.5) -> str:
    """The channels with their expected bands above the scores; alerts and labelled windows behind all of them."""
    heights = [channel_height] * len(view.courses) + [1.2]
    figure = Figure(figsize=(WIDTH, sum(heights) + 0.5), layout="constrained")
    panels: list[Axes] = figure.subplots(len(heights), 1, sharex=True, squeeze=False, height_ratios=heights)[
        :, 0
    ].tolist()
    for axes, course in zip(panels, view.courses, strict=False):
        _course(axes, course)
        axes.tick_params(bottom=False, labelbottom=False)
    below = panels[-1]
    line(below, view.scores, SIGNAL)
    below.set_ylabel("score")
    if view.threshold is not None:
        below.axhline(view.threshold, color=ALARM, linestyle="--", linewidth=0.9)
        if view.scores.max() > 6 * max(view.threshold, 1.0):
            below.set_yscale("symlog", linthresh=max(view.threshold, 1.0))
    plain_numbers(below)
    for axes in panels:
        _mark(axes, view)
    rows_as_times(below, view.times)
    figure.align_ylabels(panels)
    return svg(figure, "Signal, score, labels and alerts" if view.courses else "Score, labels and alerts")


def _course(axes: Axes, course: Course) -> None:
    corridor(axes, course.expected - course.band, course.expected + course.band, SOFT)
    line(axes, course.values, SIGNAL)
    axes.set_ylabel(course.channel, parse_math=False)
    shown = np.concatenate([course.values, course.expected])
    shown = shown[np.isfinite(shown)]
    if len(shown):
        low, high = float(shown.min()), float(shown.max())
        margin = 0.08 * (high - low) or 0.08 * abs(high) or 1.0
        axes.set_ylim(low - margin, high + margin)  # a band may reach far beyond, as after a gap
    plain_numbers(axes)


def _mark(axes: Axes, view: View) -> None:
    """Labelled windows as areas, alerts as a line where they open and a bar as long as they last."""
    narrowest = len(view.times) / 400  # rows: narrower than that would not be seen
    for windows, colour in ((view.found, LABEL), (view.missed, OTHER)):
        for first, last in windows:
            axes.axvspan(first, max(last, first + narrowest), color=colour, alpha=0.25, linewidth=0)
    for first, stop in np.flatnonzero(np.diff(np.r_[False, view.alert, False])).reshape(-1, 2).tolist():
        axes.axvline(first, color=ALARM, linewidth=0.8, alpha=0.8)
        axes.axvspan(first, max(stop, first + narrowest), ymax=0.05, color=ALARM, linewidth=0)


def _smoothed(values: FloatArray) -> FloatArray:
    """Mean of the last 25 values."""
    total = np.cumsum(np.r_[0.0, values])
    last = np.arange(1, len(values) + 1)
    first = np.maximum(last - 25, 0)
    mean: FloatArray = (total[last] - total[first]) / (last - first)
    return mean
