"""What a training came to, as one page that stands alone: open it in any browser, offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.core.readings import FloatArray, IntArray
from training import pictures
from training.page import bullets, heading, page, paragraph, table


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """Held-out rows of one channel, and what had been forecast for each of them."""

    sensor: str
    channel: str
    unit: str
    times: IntArray  # (n,) µs UTC
    actual: FloatArray  # (n,)
    forecasts: Mapping[int, FloatArray]  # steps ahead -> (n,): made that many steps before, NaN where there was none


@dataclass(frozen=True, slots=True)
class Masked:
    """Rows that training left out on purpose."""

    sensor: str
    first: int  # µs UTC
    last: int  # µs UTC
    rows: int
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class TrainingReport:
    """All that the page of a bundle shows. Errors are in robust deviations of each channel."""

    title: str
    facts: Mapping[str, str]  # what was trained on what, in words
    loss: FloatArray  # (updates,) on the fitted rows
    measured_at: IntArray  # (measures,) updates at which the held-out loss was taken
    validation: FloatArray  # (measures,) held-out loss
    best_update: int  # whose weights were kept
    examples: Sequence[Example]
    errors: FloatArray  # (n,) one-step errors on held-out rows
    scores: FloatArray  # (m,) scores on held-out rows
    threshold: float
    budget: str  # that the threshold follows from
    forecasters: Mapping[str, Mapping[int, float]]  # LSTM and baselines -> steps ahead -> mean held-out error
    masked: Sequence[Masked]
    notes: Sequence[str]


def training_report(report: TrainingReport) -> str:
    """The bundle's `report.html`."""
    body = [table(("", ""), report.facts.items()), *_forecasters(report.forecasters)]
    if len(report.loss):
        body += [heading("How the fit went")]
        body += [pictures.loss_curve(report.loss, report.measured_at, report.validation, report.best_update)]
    if report.examples:
        body += [heading("Forecast against actual"), paragraph("Rows that were held out: the network never saw them.")]
    for example in report.examples:
        body += [heading(f"{example.sensor} · {example.channel}", 3)]
        body += [pictures.forecasts(example.times, example.actual, example.forecasts, example.unit or example.channel)]
    body += [heading("Errors, scores and the threshold"), paragraph(_crossings(report))]
    body += [pictures.error_distribution(report.errors, report.scores, report.threshold)]
    body += [heading("What was masked")]
    if report.masked:
        spans = [(m.sensor, _minute(m.first), _minute(m.last), m.rows, m.reason) for m in report.masked]
        body += [table(("sensor", "from", "to", "rows", "why"), spans)]
    else:
        body += [paragraph("Nothing: no span was under alert, labelled or in maintenance.")]
    if report.notes:
        body += [heading("Decided on the way"), bullets(report.notes)]
    return page(report.title, body)


def _forecasters(errors: Mapping[str, Mapping[int, float]]) -> list[str]:
    if not errors:
        return []
    horizons = sorted({steps for by_steps in errors.values() for steps in by_steps})
    rows = [(name, *(by_steps.get(steps) for steps in horizons)) for name, by_steps in errors.items()]
    return [
        heading("Against the baselines"),
        paragraph(
            "Mean squared error of the forecast change on held-out rows, in asinh of robust deviations; lower is "
            "better. The same rows chose which update of the network was kept, which flatters it a little."
        ),
        table(("forecaster", *(f"{steps} step{'s' * (steps > 1)} ahead" for steps in horizons)), rows),
        pictures.error_bars(errors),
    ]


def _crossings(report: TrainingReport) -> str:
    above = int((report.scores >= report.threshold).sum())
    return (
        f"At the budget {report.budget} the threshold is {report.threshold:.2f}: "
        f"{above} of {len(report.scores)} held-out readings lie above it."
    )


def _minute(time: int) -> str:
    return str(np.datetime64(time, "us").astype("datetime64[m]")).replace("T", " ")
