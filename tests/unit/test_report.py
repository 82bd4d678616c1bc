"""The reports stand alone in one file, say everything, and put the worst first."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from pipeline.adapters.files import DataError, Series
from pipeline.core.readings import BoolArray
from training.evaluate import Replay, evaluate
from training.report import Example, Masked, TrainingReport, evaluation_report, training_report

RNG = np.random.default_rng(3)
MINUTES = 60_000_000 * np.arange(3000, dtype=np.int64)


def report(examples: list[Example], masked: list[Masked]) -> TrainingReport:
    return TrainingReport(
        title="flow-1min, version 2",
        facts={"sensors": "a <pump>"},
        loss=np.linspace(1, 0.1, 100),
        measured_at=np.array([50, 100]),
        validation=np.array([0.5, 0.2]),
        best_update=100,
        examples=examples,
        errors=RNG.normal(size=500),
        scores=np.r_[RNG.random(499), 4.5],
        threshold=4.0,
        budget="1/10000/sensor",
        forecasters={"LSTM": {1: 0.123, 12: 0.5}, "last value": {1: 0.25}},
        masked=masked,
        notes=["channel 'y' has no value in any sensor: left out"],
    )


def replay(sensor: str, alert: BoolArray) -> Replay:
    return Replay(sensor, MINUTES, alert + 0.1 * RNG.random(3000), alert, ((1000, 1100),))


def alarmed(*rows: int) -> BoolArray:
    flag = np.zeros(3000, np.bool_)
    flag[list(rows)] = True
    return flag


def assert_stands_alone(html: str) -> None:
    assert "default-src 'none'" in html
    assert not re.search(r"https?:|<script|<link|<img|@import|url\((?!#)", html)
    charts = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert charts
    for chart in charts:
        ElementTree.fromstring(chart.replace("<svg", '<svg xmlns:xlink="x"', 1))  # noqa: S314  # our own output
        assert "#0000a" not in chart  # every colour is the theme's


def test_a_training_report_shows_what_was_learned_against_the_baselines() -> None:
    actual = RNG.normal(size=300)
    example = Example("a <pump>", "flow", "m3/$h$", MINUTES[:300], actual, {1: actual + 0.1, 12: actual * np.nan})
    html = training_report(report([example], [Masked("a <pump>", 0, 3_600_000_000, 61, "under alert 3f2a")]))
    assert_stands_alone(html)
    for words in (
        "<h1>flow-1min, version 2</h1>",
        "a &lt;pump&gt; · flow",
        "m3/$h$",
        "forecast 12 steps before",
        '<td>last value</td><td class="number">0.25</td><td class="number">-</td>',
        ">0.123</text>",
        "At the budget 1/10000/sensor the threshold is 4.00: 1 of 500 held-out readings lie above it.",
        '<td>1970-01-01 00:00</td><td>1970-01-01 01:00</td><td class="number">61</td><td>under alert 3f2a</td>',
        "channel &#x27;y&#x27; has no value in any sensor: left out",
    ):
        assert words in html


def test_a_training_report_says_when_nothing_was_masked() -> None:
    html = training_report(report([], []))
    assert "Nothing: no span was under alert" in html
    assert "Forecast against actual" not in html


def test_an_evaluation_report_begins_with_the_series_that_went_wrong_most() -> None:
    good, missed = replay("good", alarmed(1000)), replay("missed", alarmed())
    wild = replay("wild", alarmed(100, 400, 1050, 2000, 2999))
    replays = [good, missed, wild]
    signals = {"good": Series("good", MINUTES, ("flow",), RNG.normal(size=(3000, 1)) * 1e5)}
    html = evaluation_report(evaluate(replays, with_vus=False, with_nab=True, head=400), replays, signals)
    assert_stands_alone(html)
    assert re.findall(r"<h3>(\w+)</h3>", html) == ["wild", "missed", "good"]
    assert "1 found · 0 missed · 4 false alarms · delay 50 rows · 0.2% of rows alarmed" in html
    assert "3 series, 3 labelled windows." in html
    assert "In the first 400 rows, known to be normal: 0.333 alerts a series." in html
    assert html.count("Signal, score, labels and alerts") == 1
    assert "NAB low FP rate" in html


def test_readings_that_were_not_replayed_are_refused() -> None:
    replays = [replay("a", alarmed(5))]
    short = {"a": Series("a", MINUTES[:7], ("flow",), np.zeros((7, 1)))}
    with pytest.raises(DataError, match="a: 3000 scores, but 7 readings"):
        evaluation_report(evaluate(replays, with_vus=False), replays, short)
