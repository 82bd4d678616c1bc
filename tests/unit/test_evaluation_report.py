"""The report of an evaluation stands alone in one file, says every figure, and puts the worst first."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from pipeline.adapters.replay_folder import GroupRun, Run, Signals
from tests.pages import assert_stands_alone
from training import explained
from training.evaluate import evaluate
from training.evaluation_report import MOST_CASES, MOST_SERIES, evaluation_report
from training.labelled import Allowance, Replay

RNG = np.random.default_rng(3)
MINUTES = 60_000_000 * np.arange(3000, dtype=np.int64)
RUN = Run("20/10000/sensor", 3, {"p": GroupRun("pumps-1min", "7", "ab", 60_000_000, 0.9, 2e-3, ("good", "missed"))})


def replay(sensor: str, *alarmed: int) -> Replay:
    alert = np.zeros(3000, np.bool_)
    alert[list(alarmed)] = True
    scores = alert + 0.1 * RNG.random(3000)
    return Replay(sensor, MINUTES, scores, alert, ((1000, 1100),), Allowance(RUN.budget, 2e-3, 0.9))


def signals(one: Replay) -> Signals | None:
    """Two channels, of which only the second is ever off; one series has none."""
    if one.sensor == "good":
        return None
    values = np.zeros((3000, 2))
    values[990:1110, 1] = 50.0
    return Signals(("still", "<mov$ing$>"), values, np.zeros((3000, 2)), np.ones((3000, 2)))


def test_an_evaluation_report_begins_with_the_series_that_went_wrong_most() -> None:
    replays = [replay("good", 1000), replay("missed"), replay("late", 1090), replay("wild", 100, 400, 1050, 2000, 2999)]
    figures = evaluate(replays, with_vus=False, with_nab=True, head=400)
    html = evaluation_report(figures, replays, RUN, signals)
    assert_stands_alone(html)
    cases, series = html.split("<h2>Every series</h2>")
    assert re.findall(r"<h3 id[^>]*>(\w+)</h3>", series) == ["wild", "missed", "late", "good"]
    assert re.findall(r'<a href="#[^"]*">(\w+)</a>', cases) == ["wild", "missed", "late", "good"]
    assert "1 found · 0 missed · 4 false alarms · delay 50 rows · 0.2% of rows alarmed" in series
    assert "3 of 4 labelled windows found in 4 series, with 4 false alarms." in html
    assert "The budget 20/10000/sensor allowed 23.2." in html
    assert '<td>pumps-1min</td><td>7</td><td class="number">2</td><td class="number">60</td>' in series


def test_cases_come_missed_windows_first_with_the_channels_that_were_off() -> None:
    replays = [replay("missed"), replay("wild", 1050, 2000)]
    html = evaluation_report(evaluate(replays, with_vus=False), replays, RUN, signals)
    shown = re.findall(r"<h3>(.*?)</h3>\n<p[^>]*>(.*?)</p>\n(<svg.*?</svg>)", html, flags=re.DOTALL)
    assert [title for title, _, _ in shown] == [
        "Missed window · missed · 1970-01-01 16:40 to 18:20",
        "False alarm · wild · 1970-01-02 09:20 to 09:20",
    ]
    (_, missed, picture), (_, false, _) = shown
    assert re.fullmatch(
        r"101 rows · highest score 0\.\d\d · threshold 0\.90 · &lt;mov\$ing\$&gt; up to 50 usual errors off", missed
    )
    assert false.startswith("1 row · highest score 1.")
    assert "&lt;mov$ing$&gt;" in picture
    assert ">still<" not in picture


def test_without_anything_wrong_or_known_of_the_replay_there_are_still_figures_and_pictures() -> None:
    one = replace(replay("good", 1000), allowance=None)
    html = evaluation_report(evaluate([one], with_vus=False), [one], None, lambda _: None)
    assert_stands_alone(html)
    assert "None: every window was found, and no alarm was false." in html
    assert "1 of 1 labelled window found in 1 series, with 0 false alarms.</p>" in html
    assert "Replayed with" not in html
    assert "Score, labels and alerts" in html


def test_pictures_are_capped_and_every_series_is_in_the_table() -> None:
    replays = [replay(f"s{i}") for i in range(MOST_SERIES + 3)]
    told: list[tuple[str, int, int]] = []
    figures = evaluate(replays, with_vus=False)
    html = evaluation_report(figures, replays, RUN, lambda _: None, lambda *step: told.append(step))
    assert_stands_alone(html)
    assert html.count("<svg") == MOST_CASES + MOST_SERIES
    assert f"<h2>The first {MOST_SERIES} series</h2>" in html
    assert all(f"s{i}</" in html for i in range(MOST_SERIES + 3))
    assert told[-1] == ("pictures of series", MOST_SERIES, MOST_SERIES)


def test_every_figure_is_explained_once() -> None:
    replays = [replay("good", 1000), replay("wild", 100, 1050)]
    lines = list(explained.lines(evaluate(replays, with_nab=True, head=400)))
    names = [line.name for line in lines]
    assert len(set(names)) == len(names) == 15
    assert all(line.raised and line.meaning for line in lines)
    by_name = {line.name: line for line in lines}
    assert by_name["allowed"].raised == "11.6"
    assert by_name["realised"].raised == "0.09"
    assert by_name["found windows"].meaning.startswith("of 2 labelled windows")
    assert by_name["alerts at the start"].raised == "0.5"


def test_a_ratio_of_few_allowed_alarms_is_said_to_be_chance() -> None:
    few = replace(replay("a", 100), allowance=Allowance("1/10000/sensor", 1e-4, 4.0))
    [line] = [line for line in explained.lines(evaluate([few], with_vus=False)) if line.name == "realised"]
    assert "chance decides, where fewer than 5 are allowed" in line.meaning
