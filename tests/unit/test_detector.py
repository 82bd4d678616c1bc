"""What becomes of a reading: scored, learned, refused or counted, whatever comes with it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pipeline.core.alerts import Kind
from pipeline.core.detector import Detector
from pipeline.core.events import Outcome
from pipeline.core.readings import SECOND, Reason
from pipeline.core.table import Count
from tests import models
from tests.models import INTERVAL
from tests.settled import CALM, RULES, after, assert_same_state, at, calm, settled

NAN = float("nan")


def test_a_missing_channel_is_scored_on_the_others() -> None:
    values = calm(40, 3)
    values[:, 1] = NAN
    values[30:, 0] += 15
    outcome = settled(3).step(after(values))
    assert outcome.counts == {"scored": 40}
    [alert] = outcome.alerts
    assert (alert.start, set(alert.actual)) == (at(CALM + 30), {"c0", "c2"})


def test_what_a_missing_channel_is_replaced_with_is_not_learned() -> None:
    detector, values = settled(2), calm(40, 2)
    before = detector.snapshot(0)
    values[:, 1] = NAN
    detector.step(after(values))
    now = detector.snapshot(0)
    learned = now["pending"].astype(int).sum(axis=(2, 4)) - before["pending"].astype(int).sum(axis=(2, 4))
    assert (learned[0, 0] == 40).all()
    assert not learned[0, 1].any()
    assert now["raw"][0, 1] == before["raw"][0, 1]


def test_a_reading_without_any_value_is_counted_and_repeats_the_last_score() -> None:
    outcome = settled().step(after(np.array([21.0, NAN])))
    assert outcome.counts == {"scored": 1, "unusable": 1}
    assert outcome.scores[0] == outcome.scores[1]


def test_a_bad_reading_is_neither_scored_nor_learned_nor_alerted_on() -> None:
    bad, missing = settled(), settled()
    batch = after(np.array([20.5, 1e6, 20.5]))
    outcome = bad.step(replace(batch, usable=np.array([True, False, True])))
    missing.step(after(np.array([20.5, NAN, 20.5])))
    assert_same_state(bad, missing)
    assert (outcome.alerts, outcome.counts) == ([], {"scored": 2, "unusable": 1})
    assert outcome.scores[1] == outcome.scores[0]


def test_a_reading_from_the_future_is_refused_with_a_sentence_and_the_ones_after_it_are_scored() -> None:
    detector, other, values = settled(), settled(), calm(5)
    batch = after(values)
    times, ahead = batch.times.copy(), RULES.max_future + 1
    times[2] = batch.received[2] + ahead
    outcome = detector.step(replace(batch, times=times))
    other.step(batch.take(np.array([0, 1, 3, 4])))
    [refused] = outcome.rejected
    assert (refused.reason, refused.partition, refused.offset) == (Reason.FUTURE, 0, CALM + 2)
    assert refused.detail == f"s: the reading's time is {ahead / SECOND:.0f} s ahead of its record's timestamp"
    assert outcome.counts == {"scored": 4, "future": 1, "imputed": 1}
    assert_same_state(detector, other)


def test_time_is_bounded_by_the_record_only_where_there_is_one_and_only_beyond_the_allowance() -> None:
    batch = after(calm(2))
    unbounded = replace(batch, times=batch.times + 10**15, received=np.zeros(2, np.int64))
    allowed = replace(batch, times=batch.received + RULES.max_future)
    for accepted in (unbounded, allowed):
        outcome = settled().step(accepted)
        assert outcome.rejected == []
        assert outcome.counts["scored"] == 2


def test_late_and_duplicate_readings_are_counted_apart_and_change_nothing() -> None:
    detector, values = settled(), calm(3)
    batch = after(values)
    first = detector.step(batch)
    before = detector.snapshot(0)
    again = detector.step(batch)  # the last is the newest the sensor has; the others are older
    changed = detector.step(replace(batch.take(slice(2, 3)), values=values[2:] + 1))
    assert (again.counts, changed.counts) == ({"late": 2, "duplicate": 1}, {"late": 1})
    assert again.scores.tolist() == [first.scores[2]] * 3
    assert again.alerts == changed.alerts == []
    now = detector.snapshot(0)
    for name in before:
        np.testing.assert_array_equal(now[name], before[name], err_msg=name)


def test_what_a_model_was_trained_on_is_neither_learned_nor_alerted_on() -> None:
    model = models.learnt(models.model(), models.one(calm(CALM, seed=0)))
    arrays = {k: v.copy() for k, v in model.sensors.arrays.items()}
    arrays["clock"][:, 0] = at(CALM + 20)
    detector = Detector(replace(model, sensors=replace(model.sensors, arrays=arrays)), RULES)
    outcome = detector.step(after(np.r_[calm(70)[:, 0], calm(1)[0] + 15], first=CALM - 51))
    assert outcome.scores[:71].max() <= 1.0
    assert outcome.alerts == []
    assert detector.snapshot(0)["count"][0, Count.LEARNED] == 0
    assert [a.kind for a in detector.step(after(calm(1) + 15, first=CALM + 20)).alerts] == [Kind.FORECAST]


def test_an_unseen_sensor_warms_up_for_a_window_and_is_then_scored() -> None:
    detector = Detector(models.model(), RULES)
    warming = detector.step(models.one(calm(63)))
    assert (warming.counts, warming.scores.tolist()) == ({"warming": 63}, [0.0] * 63)
    assert detector.census() == {"scoring": 0, "warming": 1, "alerting": 0, "silent": 0}
    assert "warming: 63 of 64 readings" in str(detector.describe("s"))
    then = detector.step(models.one(calm(2), first=63))
    assert then.counts == {"warming": 1, "scored": 1}
    assert detector.snapshot(0)["count"][0, Count.LEARNED] == 32 + 1  # the second half of the window, and the next
    assert detector.census() == {"scoring": 1, "warming": 0, "alerting": 0, "silent": 0}


def test_a_reading_without_a_value_does_not_shorten_the_warm_up() -> None:
    values = calm(70)
    values[10:15] = NAN
    detector = Detector(models.model(), RULES)
    assert detector.step(models.one(values)).counts == {"warming": 69, "unusable": 5, "scored": 1}


def test_an_unseen_sensor_of_a_calibrated_group_is_watched_as_soon_as_it_has_a_window() -> None:
    model = models.learnt(models.model(), models.one(calm(CALM, seed=0)))
    values = 50 * calm(100, seed=3)  # another place and size than those of the sensor that the model knows
    values[90:] += 50 * 15
    outcome = Detector(model, RULES).step(models.one(values, "other"))
    assert outcome.counts == {"warming": 64, "scored": 36}
    assert outcome.scores[64:90].max() < 3.0
    assert [a.start for a in outcome.alerts if a.kind is Kind.FORECAST] == [at(90)]


def test_sensors_do_not_touch_each_other_whatever_their_partitions() -> None:
    values = models.waves(5, 130, 2)
    together = Detector(models.model(2), RULES).step(models.stream(values, partitions=3))
    for sensor in range(5):
        alone = Detector(models.model(2), RULES).step(models.one(values[:, sensor], f"s{sensor}"))
        np.testing.assert_array_equal(together.scores[sensor::5], alone.scores)
        np.testing.assert_array_equal(together.expected[sensor::5], alone.expected)


def test_a_sensor_seen_in_two_partitions_is_followed_in_each() -> None:
    detector = settled()
    other = models.one(calm(10), partition=4, first=CALM)
    assert detector.step(other).counts == {"warming": 10}
    assert detector.step(after(calm(10))).counts == {"scored": 10}
    assert detector.census()["warming"] == detector.census()["scoring"] == 1


def test_a_dropped_partition_is_forgotten_without_a_word_and_comes_back_from_its_snapshot() -> None:
    detector, values = settled(), calm(20)
    detector.step(after(values[:10] + 15))
    [standing] = detector.open_alerts()
    kept = detector.snapshot(0)
    detector.drop(0)
    assert detector.open_alerts() == []
    assert detector.describe("s") is None
    assert sum(detector.census().values()) == 0
    detector.restore(0, kept)
    assert detector.open_alerts() == [standing]


HOSTILE = {
    "one huge": [1e300],
    "one hugely negative": [-1e300],
    "alternating": [1e300, -1e300] * 8,
    "largest": [1.79e308, -1.79e308],
    "denormal": [5e-324] * 30,
    "beyond float32": [1e39],
    "infinite": [np.inf, -np.inf],
    "missing": [NAN] * 20,
    "zero": [0.0] * 40,
}


@pytest.mark.parametrize("first", [0, 30, 80, 330], ids=["at first", "in the warm-up", "after it", "once counted"])
def test_no_value_makes_a_score_that_is_not_finite_or_keeps_a_sensor_from_being_scored(first: int) -> None:
    rows = first + 100
    values = np.repeat(calm(rows)[:, None], len(HOSTILE), axis=1)
    for sensor, spell in enumerate(HOSTILE.values()):
        values[first : first + len(spell), sensor, 0] = spell
    detector = Detector(models.model(), RULES)
    outcome = detector.step(models.stream(values))
    assert np.isfinite(outcome.scores).all()
    assert detector.census()["warming"] == 0
    assert np.isfinite(detector.step(models.stream(values)).scores).all()


@pytest.mark.parametrize("values", [[0.0], [1e300], [1.79e308, -1.79e308], [5e-324, 0.0]])
def test_a_sensor_that_has_nothing_but_hostile_values_gets_finite_scores(values: list[float]) -> None:
    outcome = Detector(models.model(), RULES).step(models.one(np.resize(values, 150)))
    assert np.isfinite(outcome.scores).all()
    assert np.isfinite(outcome.expected[65:]).all()


def test_an_empty_batch_says_nothing() -> None:
    outcome = settled(3).step(after(calm(1, 3)).take(slice(0, 0)))
    assert (len(outcome.scores), outcome.expected.shape, outcome.alerts, outcome.counts) == (0, (0, 3), [], {})


def test_a_sensor_is_described_in_words_and_plain_numbers() -> None:
    described = settled().describe("s")
    assert described is not None
    assert (described["sensor"], described["state"], described["alert_open"]) == ("s", "scoring", False)
    assert described["gap_after_seconds"] == 5 * INTERVAL / SECOND
    channels = described["channels"]
    assert isinstance(channels, dict)
    assert channels["c0"]["usual"] == pytest.approx(20, abs=0.5)
    assert channels["c0"]["scale"] == pytest.approx(1, abs=0.5)
    assert settled().describe("t") is None


def test_the_step_says_what_it_expected_and_how_wide_the_usual_error_is() -> None:
    outcome: Outcome = settled().step(after(calm(50)))
    assert outcome.expected == pytest.approx(np.full((50, 1), 20.0), abs=3.0)
    assert ((outcome.band > 1) & (outcome.band < 5)).all()
    unknown = Detector(models.model(), RULES).step(models.one(calm(64)))
    assert np.isnan(unknown.expected).all()
