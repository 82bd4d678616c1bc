"""How charts are drawn: SVG that stands inside a page, without script or fetched fonts, light or dark as the page is.

Rows run along the axis, for a file may step back in time; the axis names them by their times. Long lines are drawn as
the lowest and highest value of each stretch, so that no extreme is lost.
"""

from __future__ import annotations

import io
import re
from typing import Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FixedFormatter, FixedLocator, FuncFormatter, MaxNLocator

from pipeline.core.readings import DAY, SECOND, FloatArray, IntArray

# Drawn in these colours, shown in the page's: `svg` writes var(--name) in their place.
INK, SOFT, GRID, SIGNAL, OTHER, THIRD, ALARM, LABEL = (f"#0000{i:02x}" for i in range(0xA0, 0xA8))
NAMES = {INK: "ink", SOFT: "soft", GRID: "grid", SIGNAL: "signal", OTHER: "other", THIRD: "third"} | {
    ALARM: "alarm",
    LABEL: "label",
}
LINES = (SIGNAL, OTHER, THIRD, SOFT)
WIDTH = 9.6  # inches at 72 points: what a page of 960 pixels shows without scaling much
COLUMNS = 600  # stretches of a line that is longer
MOST_TICKS = 6  # along the axis
CLOSEST_TICKS = 0.15  # of the width
ROUND_SECONDS = (1, 2, 5, 10, 15, 30, *(60 * m for m in (1, 2, 5, 10, 15, 30, 60, 120, 180, 360, 720)))
ROUND = tuple(SECOND * s for s in ROUND_SECONDS) + tuple(DAY * d for d in (1, 2, 4, 7, 14))  # µs between ticks
Unit = Literal["D", "m", "s", "ms"]
UNITS: tuple[tuple[Unit, int], ...] = (("D", DAY), ("m", 60 * SECOND), ("s", SECOND))  # a date is named to
ROUND_MONTHS = (1, 2, 3, 6, 12, 24, 60, 120, 240, 600, 1200, 2400, 6000, 12_000)
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


def wide_figure(height: float) -> tuple[Figure, Axes]:
    """One chart as wide as a page, so many inches high."""
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    return figure, figure.subplots()


def plain_numbers(axes: Axes) -> None:
    """A few numbers up the side, 0.4 and 40k rather than powers."""
    if axes.get_yscale() == "linear":
        axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.yaxis.set_major_formatter(FuncFormatter(_number))


def _number(value: float, _: int | None = None) -> str:
    return ENGINEERING(value) if abs(value) >= 1e4 else f"{value:g}"


def line(axes: Axes, values: FloatArray, colour: str, width: float = 0.9) -> None:
    """One value a row, (n,)."""
    stretch = _stretch(len(values))
    if stretch == 1:
        axes.plot(values, color=colour, linewidth=width)
        return
    low, high = extremes(values, stretch)
    rows = np.repeat(np.arange(len(low)) * stretch, 2)
    axes.plot(rows, np.stack([low, high], axis=1).ravel(), color=colour, linewidth=width)


def corridor(axes: Axes, low: FloatArray, high: FloatArray, colour: str) -> None:
    """The area between two values a row, (n,) each; none where one is NaN."""
    stretch = _stretch(len(low))
    if stretch > 1:
        low, high = extremes(low, stretch)[0], extremes(high, stretch)[1]
    axes.fill_between(np.arange(len(low)) * stretch, low, high, color=colour, alpha=0.28, linewidth=0)


def extremes(values: FloatArray, stretch: int) -> tuple[FloatArray, FloatArray]:
    """Lowest and highest of each `stretch` rows; NaN only where all of them are."""
    padded = np.r_[values, np.full(-len(values) % stretch, np.nan)].reshape(-1, stretch)
    return np.fmin.reduce(padded, axis=1), np.fmax.reduce(padded, axis=1)


def rows_as_times(axes: Axes, times: IntArray) -> None:
    """Name rows by their times, (n,) µs UTC: round dates, or where silences leave those no row, the rows' own."""
    latest = np.maximum.accumulate(times)
    dates = round_dates(int(latest[0]), int(latest[-1]))
    rows = np.searchsorted(latest, dates)
    width = len(times)
    near = latest[rows] - dates <= CLOSEST_TICKS * (latest[-1] - latest[0])
    within = (rows > CLOSEST_TICKS / 2 * width) & (rows < (1 - CLOSEST_TICKS / 2) * width)
    rows, dates = rows[near & within], dates[near & within]
    apart = np.diff(rows, prepend=-width) > CLOSEST_TICKS * width
    rows, dates = rows[apart], dates[apart]
    if len(rows) < 2:
        rows = np.unique(np.linspace(0, width - 1, 5).round().astype(int))
        dates = times[rows]
    axes.xaxis.set_major_locator(FixedLocator(rows.tolist()))
    axes.xaxis.set_major_formatter(FixedFormatter(_names(dates)))
    axes.set_xlim(-0.5, width - 0.5)
    for row, label in zip(rows.tolist(), axes.get_xticklabels(), strict=True):
        label.set_horizontalalignment("left" if row == 0 else "right" if row == width - 1 else "center")


def round_dates(first: int, last: int) -> IntArray:
    """As many round instants from `first` to `last`, µs UTC, as an axis has room for."""
    for step in ROUND:
        if last - first < MOST_TICKS * step:
            return np.arange(-(-first // step), last // step + 1) * step
    months = np.array([first - 1, last]).astype("datetime64[us]").astype("datetime64[M]").astype(np.int64)
    for step in ROUND_MONTHS:
        of_year = np.arange(months[0] // step + 1, months[1] // step + 1) * step
        if len(of_year) <= MOST_TICKS:
            break
    return of_year.astype("datetime64[M]").astype("datetime64[us]").astype(np.int64)


def legend(axes: Axes) -> None:
    """What the lines are, above them."""
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4, borderaxespad=0.2, handlelength=1.6)


def _stretch(rows: int) -> int:
    stretch = -(-rows // COLUMNS)
    return stretch if stretch > 2 else 1


def _names(dates: IntArray) -> list[str]:
    """As short as they can be told apart and from others."""
    unit: Unit = next((unit for unit, length in UNITS if not (dates % length).any()), "ms")
    names: list[str] = np.datetime_as_string(dates.astype("datetime64[us]"), unit=unit).tolist()
    return [name.replace("T", " ") for name in names]
