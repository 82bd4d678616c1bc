"""What a training and an evaluation came to, each as one page that stands alone: open it in any browser, offline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.adapters.files import DataError, Series
from pipeline.core.readings import FloatArray, IntArray
from training import pictures
from training.evaluate import EventFigures, Figures, Replay, event_figures, events, touched
from training.page import bullets, heading, key, page, paragraph, table

MOST_PICTURES = 60  # of series, the worst first; the table names them all
EVENT_ROWS = {
    "precision": ("precision", "share of events that touch a labelled window"),
    "recall": ("recall", "share of windows found"),
    "f1": ("F1", "harmonic mean of the two"),
    "found": ("found", "windows"),
    "missed": ("missed", "windows"),
    "false": ("false alarms", "events that touch no window"),
    "false_per_10k": ("false per 10k", "false alarms per 10,000 rows outside windows"),
    "alarmed": ("alarmed", "share of rows under alarm; above 0.1 the figures mean nothing"),
    "delay_rows": ("delay, rows", "median from a window's start to its first alarmed row"),
}
NAB_MEANING = "0: no alarm at all, 100: perfect"
KEY = (
    ("signal", "signal, score"),
    ("label", "labelled window, found"),
    ("other", "labelled window, missed"),
    ("alarm", "alert; dashed: threshold"),
)


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


def evaluation_report(
    figures: Figures,
    replays: Sequence[Replay],
    signals: Mapping[str, Series] | None = None,
    threshold: float | None = None,
) -> str:
    """All figures, then every series, what went wrong most first, with its readings above where `signals` has them.

    Without the `threshold` that the alerts were raised at, the best one by the labels is drawn.
    """
    body = [paragraph(f"{_count(figures.series, 'series')}, {_count(figures.windows, 'labelled window')}.")]
    body += [*_summary(figures), heading("Series, the worst first")]
    each = [(replay, event_figures([replay], [replay.alert])) for replay in replays]
    each.sort(key=lambda one: (-one[1].missed - one[1].false, -one[1].alarmed, one[0].sensor))
    counts = [(r.sensor, len(r), f.found, f.missed, f.false, f.alarmed, f.delay_rows) for r, f in each]
    body += [table(("series", "rows", "found", "missed", "false", "alarmed", "delay, rows"), counts)]
    body += [key(KEY)]
    if len(each) > MOST_PICTURES:
        body += [paragraph(f"Pictures of the first {MOST_PICTURES}.")]
    drawn = figures.oracle_threshold if threshold is None else threshold
    for replay, found in each[:MOST_PICTURES]:
        body += [heading(replay.sensor, 3), paragraph(_verdict(found)), _picture(replay, signals, drawn)]
    return page("Evaluation", body)


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
        table(("forecaster", *(f"{_count(steps, 'step')} ahead" for steps in horizons)), rows),
        pictures.error_bars(errors),
    ]


def _crossings(report: TrainingReport) -> str:
    above = int((report.scores >= report.threshold).sum())
    return (
        f"At the budget {report.budget} the threshold is {report.threshold:.2f}: "
        f"{above} of {len(report.scores)} held-out readings lie above it."
    )


def _summary(figures: Figures) -> list[str]:
    """The figures of the alerts beside what the best threshold would have reached."""
    rows: list[tuple[str, float | None, float | None, str]] = [
        (label, getattr(figures.deployed, name), getattr(figures.oracle, name), meaning)
        for name, (label, meaning) in EVENT_ROWS.items()
    ]
    if figures.nab is not None:
        deployed, oracle = figures.nab["deployed"], figures.nab["oracle"]
        names = {profile: profile.replace("reward_", "").replace("_", " ") for profile in deployed}
        rows += [(f"NAB {name}", deployed[p], oracle[p], NAB_MEANING) for p, name in names.items()]
    body = [table(("", "alerts as raised", "best threshold", ""), rows)]
    if figures.vus_pr is not None:
        meaning = "how well the scores rank, whatever the threshold; 1 is perfect"
        body.append(paragraph(f"VUS-PR {figures.vus_pr:.4f}: {meaning}."))
    if figures.head is not None:
        alerts, head = figures.head["alerts_per_series"], figures.head["rows"]
        body.append(paragraph(f"In the first {head:.0f} rows, known to be normal: {alerts:.3g} alerts a series."))
    return [*body, paragraph("The best threshold is chosen with the labels in hand: a bound, not a result.")]


def _verdict(found: EventFigures) -> str:
    parts = [f"{found.found} found", f"{found.missed} missed", _count(found.false, "false alarm")]
    if found.delay_rows is not None:
        parts.append(f"delay {_count(found.delay_rows, 'row')}")
    return " · ".join([*parts, f"{found.alarmed:.1%} of rows alarmed"])


def _picture(replay: Replay, signals: Mapping[str, Series] | None, threshold: float | None) -> str:
    series = (signals or {}).get(replay.sensor)
    signal = None
    if series is not None:
        if len(series) != len(replay):
            counts = f"{len(replay)} scores, but {len(series)} readings"
            raise DataError(f"{replay.sensor}: {counts}; give the readings that were replayed")
        signal = series.channels[0], series.values[:, 0]
    raised = events(replay.alert)
    found = [window for window in replay.windows if touched(window, raised)]
    missed = [window for window in replay.windows if not touched(window, raised)]
    return pictures.replayed(replay.times, replay.scores, replay.alert, found, missed, threshold, signal)


def _count(number: float, noun: str) -> str:
    plural = noun if number == 1 or noun.endswith("s") else f"{noun}s"
    return f"{number:g} {plural}"


def _minute(time: int) -> str:
    return str(np.datetime64(time, "us").astype("datetime64[m]")).replace("T", " ")
