"""What a sensor that was not trained on is like is read off histories that begin as a new sensor's would."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from pipeline.core import episodes
from pipeline.core.alerts import Kind, State
from pipeline.core.detector import Detector
from pipeline.core.events import Rules
from pipeline.core.model import Model
from pipeline.core.readings import FloatArray
from pipeline.core.scaling import location_and_scale, statistics
from pipeline.core.table import FEATURES, TAIL_BINS, Clock, Columns, Lane, Level, SensorTable, layout
from pipeline.core.tails import BLOCK_ROWS, MOST_COUNTS
from pipeline.core.thresholds import Budget
from tests import models
from tests.models import INTERVAL, START
from training import unseen
from training.calibrate import Sensor, calibrate
from training.dataset import History
from training.rehearsal import Stretch, rehearse
from training.unseen import MOST_STRETCHES, PRIOR_COUNTS, STRETCH_READINGS, Prior, group_prior, pooled

WINDOW = 64
RULES = Rules(budget=Budget.parse("1/10000/sensor"))


def history(sensor: str, rows: int, seed: int = 0) -> Stretch:
    """Noise around 20, a reading a minute."""
    times = START + INTERVAL * np.arange(rows, dtype=np.int64)
    return Stretch(sensor, times, 20 + np.random.default_rng(seed).standard_normal((rows, 1)))


def trained(sensors: int = 3) -> Columns:
    """The tables of sensors that training knows: each has counted 900 small values and 100 larger ones."""
    arrays = SensorTable(layout(models.model())).blank(sensors)
    arrays.tail[..., :5] = 1000
    arrays.tail[..., 5:12] = 100
    arrays.lane[..., Lane.LOG_ERROR] = np.arange(sensors)[:, None] - 1.0
    arrays.clock[:, Clock.GAP_LIMIT] = 5 * INTERVAL * np.arange(1, sensors + 1)
    return arrays


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Sequence[Stretch]]:
    """The stretches of each rehearsal, none of which is held."""
    seen: list[Sequence[Stretch]] = []

    def note(model: Model, stretches: Sequence[Stretch], **_: Any) -> Any:
        seen.append(stretches)
        return rehearse(model, [history("000000", WINDOW)])

    monkeypatch.setattr(unseen, "rehearse", note)
    return seen


# -- stretches


@pytest.mark.parametrize(
    ("rows", "lengths"), [(300, [300]), (2048, [2048]), (4095, [4095]), (4096, [2048] * 2), (7000, [2333, 2333, 2334])]
)
def test_a_history_is_cut_into_stretches_of_about_2048_readings(
    rows: int, lengths: list[int], read: list[Sequence[Stretch]]
) -> None:
    one = history("a", rows)
    group_prior(models.model(), trained(), [one])
    first, second = read
    assert STRETCH_READINGS == 2048
    assert [len(s.times) for s in first] == lengths
    np.testing.assert_array_equal(np.concatenate([s.times for s in first]), one.times)
    np.testing.assert_array_equal(np.concatenate([s.values for s in first]), one.values)
    assert [s.sensor for s in first] == sorted({s.sensor for s in first})  # each is a sensor of its own
    assert second is first


def test_what_is_too_short_for_a_window_and_a_block_of_counts_is_left_out(read: list[Sequence[Stretch]]) -> None:
    enough = WINDOW + BLOCK_ROWS
    group_prior(models.model(), trained(), [history("a", enough - 1), history("b", enough), history("c", 30)])
    assert [len(s.times) for s in read[0]] == [enough]


@pytest.mark.parametrize(("histories", "every"), [(64, 1), (65, 2), (200, 4)])
def test_of_a_large_group_so_many_stretches_are_read_from_all_over_it(
    histories: int, every: int, read: list[Sequence[Stretch]]
) -> None:
    group_prior(models.model(), trained(), [history(f"s{i:03d}", 220, i) for i in range(histories)])
    assert [s.sensor for s in read[0]] == [f"{i:06d}" for i in range(0, histories, every)]
    assert len(read[0]) <= MOST_STRETCHES


# -- the prior


@cache
def prior_of_noise() -> Prior:
    return group_prior(models.model(), trained(), [history(f"s{i}", 700, i) for i in range(4)])


def test_the_prior_is_a_group_s_and_has_no_scale() -> None:
    prior = prior_of_noise()
    assert "scale" not in prior
    assert prior["count"].tolist() == [0, 0]
    assert prior["clock"][Clock.GAP_LIMIT] == 10 * INTERVAL
    assert prior["lane"][0, Lane.LOG_ERROR] == 0.0  # the median sensor's
    assert not prior["known"].any()


def test_its_tails_weigh_so_much_that_a_new_sensor_does_not_move_them() -> None:
    tail = prior_of_noise()["tail"]
    assert (tail[..., 0] == PRIOR_COUNTS).all()
    assert PRIOR_COUNTS >= MOST_COUNTS
    assert (np.diff(tail.astype(int), axis=-1) <= 0).all()
    detector = Detector(replace(models.model(), prior=prior_of_noise()))
    detector.step(models.one(history("s", 600, 9).values))
    np.testing.assert_array_equal(detector.snapshot(0)["tail"][0], tail)


def test_it_is_what_the_group_s_sensors_look_like_while_they_are_new() -> None:
    histories = [history(f"{i:06d}", 700, i) for i in range(4)]
    prior = prior_of_noise()
    nobody_knows = replace(models.model(), prior=prior | {"tail": np.zeros_like(prior["tail"])})
    as_new = rehearse(nobody_knows, histories)
    np.testing.assert_array_equal(prior["tail"], pooled(as_new.arrays.tail))
    judged = rehearse(replace(models.model(), prior=prior), histories).blocks
    usual, excess = prior["level"][Level.USUAL], prior["level"][Level.EXCESS]
    assert usual == pytest.approx(np.nanmedian(judged), rel=0.05)
    assert prior["level"].tolist() == [usual, excess, usual, excess, episodes.UNSEEN_BLOCKS]


def test_counts_are_pooled_over_the_sensors_by_how_much_each_has_counted() -> None:
    tail = np.zeros((2, 1, FEATURES, TAIL_BINS), np.uint16)
    tail[0, ..., :10], tail[1, ..., :20] = 300, 100
    expected = np.zeros(TAIL_BINS)
    expected[:10], expected[10:20] = PRIOR_COUNTS, PRIOR_COUNTS / 4
    assert (pooled(tail)[0] == expected).all()
    assert not pooled(np.zeros_like(tail)).any()


def test_where_no_history_is_long_enough_the_tails_are_those_of_the_trained_sensors() -> None:
    prior = group_prior(models.model(), trained(), [history("a", WINDOW + BLOCK_ROWS - 1), history("b", 5)])
    np.testing.assert_array_equal(prior["tail"], pooled(trained().tail))
    assert prior["level"].tolist() == pytest.approx(episodes.NO_GROUP)
    detector = Detector(replace(models.model(), prior=prior))
    assert np.isfinite(detector.step(models.one(history("s", 150, 9).values)).scores).all()


def test_histories_without_any_value_leave_a_prior_that_can_be_served() -> None:
    empty = history("a", 400)
    empty.values[:] = np.nan
    prior = group_prior(models.model(), trained(), [empty])
    assert not prior["tail"].any()
    outcome = Detector(replace(models.model(), prior=prior)).step(models.one(history("s", 400, 9).values))
    assert np.isfinite(outcome.scores).all()


# -- what it is for: a day of 600 readings, of which a first window shows a tenth


def day(rows: int, seed: int) -> FloatArray:
    """A wave from some phase on, with noise; its scale over a window is far smaller than over a day."""
    rng = np.random.default_rng(seed)
    wave: FloatArray = 5 * np.sin(2 * np.pi * (np.arange(rows) / 600 + rng.random())) + 0.2 * rng.standard_normal(rows)
    return 20 + wave[:, None]


@cache
def trained_on_days() -> Model:
    rows = 2048
    times = START + INTERVAL * np.arange(rows, dtype=np.int64)
    sensors = []
    for i in range(6):
        values = day(rows, i)
        one = History(f"s{i}", times, values, np.isnan(values), np.zeros(1, np.int64), rows // 2, 5 * INTERVAL)
        sensors.append(Sensor(one, location_and_scale(statistics(values))))
    return calibrate(models.model(), sensors)[0]


def alerts_and_scores(prior: Prior) -> tuple[int, FloatArray]:
    """Of eight new sensors of this kind, over a day and more: the forecast alerts, and the scores."""
    batch = models.stream(np.stack([day(800, 100 + i) for i in range(8)], axis=1))
    new = replace(batch, sensors=[f"new-{sensor}" for sensor in batch.sensors])
    outcome = Detector(replace(trained_on_days(), prior=prior), RULES).step(new)
    return sum(a.kind is Kind.FORECAST and a.state is State.FIRING for a in outcome.alerts), outcome.scores


def of_the_trained(prior: Prior) -> Prior:
    """What the sensors' own tables would say of a new one."""
    tables = trained_on_days().sensors.arrays
    usual, excess = np.median(tables["level"][:, Level.USUAL]), np.median(tables["level"][:, Level.EXCESS])
    level = np.array([usual, excess, usual, excess, episodes.UNSEEN_BLOCKS], np.float32)
    return prior | {"tail": pooled(tables["tail"]), "level": level}


@pytest.mark.parametrize(("prior_of", "bursts"), [(dict, False), (of_the_trained, True)], ids=["as new", "as trained"])
def test_a_new_sensor_whose_first_window_shows_little_of_its_day_raises_no_burst_of_alerts(
    prior_of: Callable[[Prior], Prior], bursts: bool
) -> None:
    alerts, scores = alerts_and_scores(prior_of(dict(trained_on_days().prior)))
    high = (scores >= 4.0).mean()
    if bursts:
        assert alerts >= 8  # every one of them
        assert high > 0.3
    else:
        assert alerts <= 2
        assert high < 0.01
