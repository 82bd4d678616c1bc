"""What an evaluation came to, as one page that stands alone: the figures, the worst cases, every series."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.adapters.replay_folder import Run, Signals
from pipeline.core.readings import SECOND
from training import explained, pictures
from training.cases import Case, cases, late, telling_channels, worst
from training.evaluate import EventFigures, Figures, Progress, event_figures, untold
from training.labelled import Replay, Span, events, touched
from training.page import Link, heading, key, page, paragraph, table, tiles

MOST_CASES = 20
MOST_SERIES = 40  # pictures, the worst first; the table names them all
KEY = (
    ("signal", "signal, score"),
    ("soft", "expected, and its usual error"),
    ("label", "labelled window, found"),
    ("other", "labelled window, missed"),
    ("alarm", "alert; dashed: threshold"),
)

SignalsOf = Callable[[Replay], Signals | None]  # None where the replay left none


@dataclass(frozen=True, slots=True, eq=False)
class _Judged:
    """One series with what became of its windows and alerts."""

    replay: Replay
    figures: EventFigures
    cases: Sequence[Case]
    late: int
    vus_pr: float | None
    anchor: str


def evaluation_report(
    figures: Figures,
    replays: Sequence[Replay],
    run: Run | None,
    signals_of: SignalsOf,
    progress: Progress = untold,
) -> str:
    """The page; `signals_of` a sensor are asked for when its pictures are drawn, a few in a second."""
    judged = [_judge(replay, figures, i) for i, replay in enumerate(replays)]
    judged.sort(key=lambda j: (-len(j.cases), -j.late, -j.figures.alarmed, j.replay.sensor))
    every = [case for j in judged for case in j.cases]
    shown, drawn = worst(every, MOST_CASES), judged[:MOST_SERIES]
    body = [paragraph(explained.headline(figures)), tiles(_tiles(figures)), *_summary(figures)]
    body += [heading("Series, what went wrong most first"), _series_table(judged)]
    body += [heading("Worst cases"), *_choice(shown, len(every))]
    for done, case in enumerate(shown, 1):
        body += _case(case, signals_of(case.replay))
        progress("pictures of cases", done, len(shown))
    body += [heading("Every series" if len(drawn) == len(judged) else f"The first {len(drawn)} series"), key(KEY)]
    for done, one in enumerate(drawn, 1):
        body += _series(one, signals_of(one.replay))
        progress("pictures of series", done, len(drawn))
    return page("Evaluation", [*body, *_origin(run)])


def _judge(replay: Replay, figures: Figures, number: int) -> _Judged:
    its = event_figures([replay], [replay.alert])
    volume = figures.vus_pr_by_series.get(replay.sensor)
    return _Judged(replay, its, cases(replay), late(replay), volume, f"series-{number}")


def _tiles(figures: Figures) -> Iterable[tuple[str, str, str]]:
    raised, budget = figures.deployed, figures.budget
    if figures.vus_pr is not None:
        yield "VUS-PR", f"{figures.vus_pr:.3f}", "of 1"
    yield "event F1, as raised", f"{raised.f1:.3f}", f"best threshold: {figures.oracle.f1:.3f}"
    yield "windows found", f"{raised.found} of {figures.windows}", f"recall {raised.recall:.0%}"
    allowed = f"{budget.allowed:.3g} allowed" if budget is not None else f"{raised.false_per_10k:.2g} in 10,000 rows"
    yield "false alarms", str(raised.false), allowed
    if raised.delay_rows is not None:
        yield "median delay", f"{raised.delay_rows:g}", "rows"
    if figures.nab is not None:
        yield "NAB standard", f"{figures.nab['deployed']['standard']:.1f}", "of 100"


def _summary(figures: Figures) -> list[str]:
    rows = [(name, raised, best, meaning) for name, raised, best, meaning in explained.lines(figures)]
    return [
        table(("", "alerts as raised", "best threshold", "what it says"), rows, right=(1, 2)),
        paragraph(explained.BEST_THRESHOLD, soft=True),
    ]


def _series_table(judged: Sequence[_Judged]) -> str:
    header = ("series", "rows", "found", "late", "missed", "false alarms", "alarmed", "delay", "VUS-PR")
    drawn = {j.anchor for j in judged[:MOST_SERIES]}
    rows = [
        (
            Link(j.replay.sensor, j.anchor) if j.anchor in drawn else j.replay.sensor,
            len(j.replay),
            j.figures.found,
            j.late,
            j.figures.missed,
            j.figures.false,
            f"{j.figures.alarmed:.1%}",
            j.figures.delay_rows,
            j.vus_pr,
        )
        for j in judged
    ]
    note = "Late: found, but not before the window's second half. Delay: in rows, the median of the windows found."
    return table(header, rows, right=range(1, len(header))) + paragraph(note, soft=True)


def _choice(shown: Sequence[Case], of: int) -> list[str]:
    if not shown:
        return [paragraph("None: every window was found, and no alarm was false.")]
    missed = sum(case.missed for case in shown)
    choice = (
        f"{len(shown)} of {of}: {missed} missed windows, those with the lowest scores first, then "
        f"{len(shown) - missed} false alarms, those with the highest first. Of many channels those are shown that "
        "were furthest from what had been expected, measured by its usual error."
    )
    return [paragraph(choice, soft=True), key(KEY)]


def _case(case: Case, signals: Signals | None) -> list[str]:
    what = "Missed window" if case.missed else "False alarm"
    rows, allowance = case.span[1] - case.span[0] + 1, case.replay.allowance
    remarks = [_count(rows, "row"), f"highest score {case.peak:.2f}"]
    remarks += [f"threshold {allowance.threshold:.2f}"] if allowance is not None else []
    telling = telling_channels(signals, [case.span]) if signals is not None else {}
    remarks += (
        [f"{signals.channels[i]} up to {off:.3g} usual errors off" for i, off in telling.items()] if signals else []
    )
    return [
        heading(f"{what} · {case.replay.sensor} · {_period(case)}", 3),
        paragraph(" · ".join(remarks), soft=True),
        pictures.replayed(_view(case.replay, signals, list(telling), case.surroundings)),
    ]


def _series(judged: _Judged, signals: Signals | None) -> list[str]:
    replay, its = judged.replay, judged.figures
    remarks = [f"{its.found} found", f"{its.missed} missed", _count(its.false, "false alarm")]
    remarks += [f"delay {its.delay_rows:g} rows"] if its.delay_rows is not None else []
    wrong = [case.span for case in judged.cases] or replay.windows
    telling = telling_channels(signals, wrong) if signals is not None else {}
    return [
        heading(replay.sensor, 3, judged.anchor),
        paragraph(" · ".join([*remarks, f"{its.alarmed:.1%} of rows alarmed"]), soft=True),
        pictures.replayed(_view(replay, signals, sorted(telling), slice(0, len(replay)))),
    ]


def _origin(run: Run | None) -> list[str]:
    if run is None:
        return []
    header = ("model", "version", "sensors replayed", "interval, s", "threshold", "allowed a reading")
    rows = [
        (g.model, g.version, len(g.sensors), g.interval_us / SECOND, f"{g.threshold:.2f}", f"{g.allowed:.3g}")
        for g in run.groups.values()
    ]
    fleet = f"Budget {run.budget}, in a fleet of {_count(run.fleet, 'sensor')} that the models know."
    return [heading("Replayed with"), paragraph(fleet), table(header, rows, right=(4, 5))]


def _view(replay: Replay, signals: Signals | None, channels: Sequence[int], rows: slice) -> pictures.View:
    raised = events(replay.alert)
    found = [window for window in replay.windows if touched(window, raised)]
    missed = [window for window in replay.windows if not touched(window, raised)]
    return pictures.View(
        replay.times[rows],
        replay.scores[rows],
        replay.alert[rows],
        _within(found, rows),
        _within(missed, rows),
        replay.allowance.threshold if replay.allowance is not None else None,
        [_course(signals, channel, rows) for channel in channels] if signals is not None else [],
    )


def _course(signals: Signals, channel: int, rows: slice) -> pictures.Course:
    its = signals.values[rows, channel], signals.expected[rows, channel], signals.band[rows, channel]
    return pictures.Course(signals.channels[channel], *its)


def _within(spans: Sequence[Span], rows: slice) -> list[Span]:
    cut = [(max(first, rows.start) - rows.start, min(last, rows.stop - 1) - rows.start) for first, last in spans]
    return [(first, last) for first, last in cut if first <= last]


def _period(case: Case) -> str:
    times = case.replay.times[list(case.span)].astype("datetime64[us]")
    first, last = (stamp.replace("T", " ") for stamp in np.datetime_as_string(times, unit="m").tolist())
    return f"{first} to {last if first[:10] != last[:10] else last[11:]}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"
