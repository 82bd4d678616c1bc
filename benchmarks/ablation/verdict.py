"""The table, its columns, and in a sentence whether the network earns its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from rich import box
from rich.table import Table

from training.evaluate import Figures

NO_DIFFERENCE = 0.02  # of a figure between 0 and 1; less is noise on sets of this size, and a control is cheaper


class Column(NamedTuple):
    """A figure and how it is written."""

    head: str
    of: Callable[[Figures], float | None]
    form: str
    judges: float = 0.0  # what is 1 on its scale, where more is better and forecasters are compared by it


COLUMNS = (
    Column("VUS-PR", lambda f: f.vus_pr, ".3f", 1.0),
    Column("event F1", lambda f: f.deployed.f1, ".3f", 1.0),
    Column("precision", lambda f: f.deployed.precision, ".2f"),
    Column("recall", lambda f: f.deployed.recall, ".2f"),
    Column("best F1", lambda f: f.oracle.f1, ".3f", 1.0),
    Column("alarmed", lambda f: f.deployed.alarmed, ".1%"),
    Column("false per 10k", lambda f: f.deployed.false_per_10k, ".2f"),
    Column("realised / budget", lambda f: f.budget.ratio if f.budget else None, ".2f"),
    Column("NAB oracle", lambda f: f.nab["oracle"]["standard"] if f.nab else None, ".1f", 100.0),
    Column("NAB deployed", lambda f: f.nab["deployed"]["standard"] if f.nab else None, ".1f", 100.0),
    Column("alerts in head", lambda f: f.head["alerts_per_series"] if f.head else None, ".2f"),
    Column("median delay", lambda f: f.deployed.delay_rows, ".0f"),
)


class Rows(NamedTuple):
    """The figures of every row, by its name."""

    whole: Figures
    parts: Mapping[str, Figures]
    network: str  # LSTM or GRU
    controls: Mapping[str, Figures]


def table(title: str, rows: Rows, markdown: bool) -> Table:
    """Whole detector, parts, forecasters; a column for each figure that was asked for."""
    columns = [c for c in COLUMNS if c.of(rows.whole) is not None]
    style = box.MARKDOWN if markdown else box.SIMPLE_HEAD
    found = Table(title=title, box=style, title_justify="left", collapse_padding=not markdown)
    found.add_column(no_wrap=True)
    for column in columns:
        found.add_column(column.head, justify="right")
    forecasters = {f"forecaster: {rows.network}": rows.whole}
    forecasters |= {f"forecaster: {name}": figures for name, figures in rows.controls.items()}
    for section in ({"whole detector": rows.whole}, rows.parts, forecasters):
        for name, figures in section.items():
            found.add_row(name, *(_written(column, figures) for column in columns))
        if not markdown:
            found.add_section()
    return found


def sentence(rows: Rows) -> str:
    """Where the network does better than every control, and where it does not."""
    if not rows.controls:
        return f"No control was run: whether the {rows.network} earns its place is not known."
    earned: list[str] = []
    not_earned: list[str] = []
    for column in COLUMNS:
        own = column.of(rows.whole)
        if not column.judges or own is None:
            continue
        best = max(rows.controls, key=lambda name: column.of(rows.controls[name]) or 0.0)
        other = column.of(rows.controls[best]) or 0.0
        compared = f"{column.head} ({own:{column.form}}, {best} {other:{column.form}})"
        (earned if own - other > NO_DIFFERENCE * column.judges else not_earned).append(compared)
    if not not_earned:
        return f"The {rows.network} earns its place here by {_and(earned)}."
    if not earned:
        return f"The {rows.network} does not earn its place here: no better than a control by {_and(not_earned)}."
    return f"The {rows.network} earns its place here by {_and(earned)}; it does not by {_and(not_earned)}."


def _written(column: Column, figures: Figures) -> str:
    value = column.of(figures)
    return "-" if value is None else f"{value:{column.form}}"


def _and(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
