"""The figures of an evaluation in a person's words, for the terminal and for the report."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from training.evaluate import EventFigures, Figures
from training.labelled import SAME_EVENT

FEWEST_ALLOWED = 5  # false alarms: with fewer, chance decides what the ratio is
BEST_THRESHOLD = (
    "The best threshold is chosen with the labels in hand, one for all series: a bound on what the scores could do, "
    "not a result."
)
NAB_MEANINGS = {
    "standard": "0: no alarm at all, 100: one at the start of every window and no other",
    "reward_low_FP_rate": "the same, where a false alarm costs twice as much",
    "reward_low_FN_rate": "the same, where a missed window costs twice as much",
}


class Line(NamedTuple):
    """One figure: of the alerts as they were raised, and of the best threshold where it has one."""

    name: str
    raised: str
    best: str
    meaning: str


def headline(figures: Figures) -> str:
    """The evaluation in two sentences."""
    raised = figures.deployed
    found = f"{raised.found} of {_count(figures.windows, 'labelled window')} found in {figures.series} series"
    false = f"{_count(raised.false, 'false alarm')}"
    if figures.budget is None:
        return f"{found}, with {false}."
    allowed = f"{figures.budget.budget} allowed {figures.budget.allowed:.3g}"
    return f"{found}, with {false}. The budget {allowed}."


def lines(figures: Figures) -> Iterator[Line]:
    """Every figure there is, in the order in which they are read."""
    raised, best = figures.deployed, figures.oracle
    if figures.vus_pr is not None:
        yield Line(
            "VUS-PR", f"{figures.vus_pr:.3f}", "", "how well the scores rank, whatever the threshold; 1: perfectly"
        )
    precision = "found windows / (found windows + false alarms)"
    yield Line("event precision", f"{raised.precision:.3f}", f"{best.precision:.3f}", precision)
    yield Line("event recall", f"{raised.recall:.3f}", f"{best.recall:.3f}", "found windows / all windows")
    yield Line("event F1", f"{raised.f1:.3f}", f"{best.f1:.3f}", "harmonic mean of the two")
    windows = f"of {figures.windows} labelled windows, those that an alarm touches"
    yield Line("found windows", str(raised.found), str(best.found), windows)
    false = f"alarms that touch no window; up to {SAME_EVENT} rows apart they are one"
    yield Line("false alarms", str(raised.false), str(best.false), false)
    yield from _budget(figures)
    per_10k = "false alarms in 10,000 rows outside windows"
    yield Line("false per 10k", f"{raised.false_per_10k:.3g}", f"{best.false_per_10k:.3g}", per_10k)
    alarmed = "share of all rows; above 10 % the figures of events say nothing"
    yield Line("alarmed", f"{raised.alarmed:.1%}", f"{best.alarmed:.1%}", alarmed)
    yield Line("median delay", _rows(raised), _rows(best), "rows from a window's first to its first alarmed one")
    if figures.nab is not None:
        deployed, oracle = figures.nab["deployed"], figures.nab["oracle"]
        for profile, meaning in NAB_MEANINGS.items():
            name = profile.removeprefix("reward_").removesuffix("_rate").replace("_", " ")
            yield Line(f"NAB {name}", f"{deployed[profile]:.1f}", f"{oracle[profile]:.1f}", meaning)
    if figures.head is not None:
        meaning = f"a series, in its first {figures.head['rows']:.0f} rows, known to be normal"
        yield Line("alerts at the start", f"{figures.head['alerts_per_series']:.3g}", "", meaning)


def _budget(figures: Figures) -> Iterator[Line]:
    budget = figures.budget
    if budget is None:
        return
    yield Line("allowed", f"{budget.allowed:.3g}", "", f"false alarms: {budget.budget} over the rows outside windows")
    meaning = "false alarms / allowed; 1: as many as were asked for"
    if budget.allowed < FEWEST_ALLOWED:
        meaning = f"false alarms / allowed; chance decides, where fewer than {FEWEST_ALLOWED} are allowed"
    yield Line("realised", f"{budget.ratio:.2f}", "", meaning)


def _rows(figures: EventFigures) -> str:
    return "-" if figures.delay_rows is None else f"{figures.delay_rows:g}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
