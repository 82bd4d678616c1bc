"""The report of a training stands alone in one file and says everything."""

from __future__ import annotations

import numpy as np

from tests.pages import assert_stands_alone
from training.report import Example, Masked, TrainingReport, training_report

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
