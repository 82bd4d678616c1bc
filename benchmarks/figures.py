"""A measured figure beside its goal, the ceiling of its run and a peer at the same work; table and JSON of them."""

from __future__ import annotations

import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Measured:
    """The median of several repeats."""

    value: float
    spread: float = 0.0  # highest less lowest, as a share of the median

    @classmethod
    def of(cls, repeats: Sequence[float]) -> Measured:
        """Of at least one."""
        middle = statistics.median(repeats)
        return cls(middle, (max(repeats) - min(repeats)) / middle if middle else 0.0)

    def times(self, factor: float) -> Measured:
        """The same in another unit."""
        return Measured(self.value * factor, self.spread)

    @property
    def inverse(self) -> Measured:
        """A cost as a rate, a rate as a cost."""
        return Measured(1 / self.value, self.spread)


@dataclass(frozen=True, slots=True)
class Goal:
    """What a figure should come to, in its own unit."""

    bound: float
    at_most: bool = True

    def __str__(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {number(self.bound)}"

    def met(self, value: float) -> bool:
        """Whether the value keeps to the bound; what is not a number does not."""
        return value <= self.bound if self.at_most else value >= self.bound


@dataclass(frozen=True, slots=True)
class Beside:
    """What the figure is compared with: measured in the same run, in the figure's unit."""

    what: str
    value: float


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table. `value` is None where nothing was measured, and `remark` says why."""

    figure: str
    value: float | None
    unit: str
    spread: float = 0.0
    goal: Goal | None = None
    ceiling: Beside | None = None
    peer: Beside | None = None
    remark: str = ""

    @classmethod
    def of(
        cls,
        figure: str,
        measured: Measured,
        unit: str,
        goal: Goal | None = None,
        ceiling: Beside | None = None,
        peer: Beside | None = None,
        remark: str = "",
    ) -> Figure:
        """What repeats have measured."""
        return cls(figure, measured.value, unit, measured.spread, goal, ceiling, peer, remark)

    @classmethod
    def missing(cls, figure: str, unit: str, goal: Goal | None, why: str) -> Figure:
        """A figure that this run could not measure."""
        return cls(figure, None, unit, goal=goal, remark=f"not measured: {why}")

    @property
    def met(self) -> bool | None:
        """None where there is no goal, or no value."""
        return None if self.goal is None or self.value is None else self.goal.met(self.value)

    def over(self, beside: Beside | None) -> float | None:
        """This figure as a multiple of another."""
        if self.value is None or beside is None or not beside.value:
            return None
        return self.value / beside.value

    def as_json(self) -> dict[str, object]:
        """Exactly what a reader of the file is promised; numbers that are none are null."""
        return {
            "figure": self.figure,
            "value": _plain(self.value),
            "unit": self.unit,
            "goal": None if self.goal is None else self.goal.bound,
            "met": self.met,
            "ceiling": None if self.ceiling is None else _plain(self.ceiling.value),
            "peer": None if self.peer is None else _plain(self.peer.value),
        }


def write(figures: Iterable[Figure], path: Path) -> None:
    """The file that `--json` names."""
    rows = [figure.as_json() for figure in figures]
    path.write_text(json.dumps({"figures": rows}, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def table(figures: Iterable[Figure]) -> Table:
    """For people: each figure with its spread, its goal, and how often it holds what it is compared with."""
    shown = Table("figure", "value", "unit", "spread", "goal", "met", "ceiling", "peer", "remark", expand=False)
    for column in (1, 3, 4):
        shown.columns[column].justify = "right"
    shown.columns[0].min_width = 30
    for f in figures:
        verdict = {None: "", True: "[green]yes[/]", False: "[red]no[/]"}[f.met]
        value = "" if f.value is None else number(f.value)
        spread = f"{f.spread:.0%}" if f.spread else ""
        goal = str(f.goal or "")
        shown.add_row(
            f.figure, value, f.unit, spread, goal, verdict, _beside(f, f.ceiling), _beside(f, f.peer), f.remark
        )
    return shown


def number(value: float) -> str:
    """Three figures that count, and no power of ten."""
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def repeated(work: Callable[[], float], repeats: int) -> Measured:
    """What `work` returns, several times."""
    return Measured.of([work() for _ in range(repeats)])


def processor_us(work: Callable[[], object], readings: int, repeats: int) -> Measured:
    """µs of processor time a reading: what others do on the machine counts less than on the clock on the wall."""

    def once() -> float:
        before = time.process_time()
        work()
        return (time.process_time() - before) / readings * 1e6

    return repeated(once, repeats)


def _beside(figure: Figure, beside: Beside | None) -> str:
    if beside is None:
        return ""
    ratio = figure.over(beside)
    times = "" if ratio is None else f"{number(ratio)}x of "
    return f"{times}{number(beside.value)} ({beside.what})"


def _plain(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")
