"""What an operator is told: when an alert opens and ends, what it says of itself, and that it is told once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest

from pipeline.core.alerts import Alert, Kind, Resolution, Severity, State, alert_id
from pipeline.core.detector import Detector
from pipeline.core.events import Bound, Retire, Tick
from pipeline.core.readings import SECOND
from pipeline.core.reporting import Reporter
from pipeline.core.table import SensorTable, layout
from pipeline.core.thresholds import Budget
from tests import models
from tests.models import INTERVAL
from tests.settled import CALM, RULES, after, assert_same_state, at, calm, settled


def of(kind: Kind, alerts: Iterable[Alert]) -> list[Alert]:
    return [a for a in alerts if a.kind is kind]


def test_a_jump_raises_an_alert_that_explains_itself() -> None:
    values = calm(10)
    values[4:] += 15
    outcome = settled().step(after(values))
    [alert] = outcome.alerts
    assert (alert.state, alert.kind, alert.severity, alert.sensor) == (
        State.FIRING,
        Kind.FORECAST,
        Severity.CRITICAL,
        "s",
    )
    assert alert.alert_id == alert_id("s", Kind.FORECAST, "", at(CALM + 4))
    assert (alert.start, alert.last, alert.end, alert.revision) == (at(CALM + 4), at(CALM + 4), None, 1)
    assert alert.score is not None
    assert alert.threshold is not None
    assert alert.score == outcome.scores[4] >= alert.threshold >= 3.0
    assert alert.actual == {"c0": values[4, 0]}
    low, high = alert.band["c0"]
    assert low < alert.expected["c0"] == outcome.expected[4, 0] < high < alert.actual["c0"]
    assert 15 < alert.expected["c0"] < 25
    assert alert.contributions == {"c0": 1.0}
    assert (alert.evidence.partition, alert.evidence.first_offset, alert.evidence.last_offset) == (
        0,
        CALM + 4,
        CALM + 4,
    )
    assert alert.model == models.model().ref
    assert alert.detection_delay_ms == 0


def test_the_alert_ends_when_the_signal_is_back_under_the_same_id_and_says_over_which_stretch() -> None:
    values = calm(300)
    values[4:14] += 15
    outcome = settled().step(after(values))
    opened, ended = outcome.alerts
    assert (ended.alert_id, ended.start, ended.revision) == (opened.alert_id, opened.start, 2)
    assert (ended.state, ended.resolution) == (State.RESOLVED, Resolution.RETURNED)
    assert ended.end is not None
    length = (ended.end - opened.start) // INTERVAL
    assert (ended.evidence.first_offset, ended.evidence.last_offset) == (CALM + 4, CALM + 4 + length)
    assert np.flatnonzero(outcome.alerting).tolist() == list(range(4, 4 + length))


def test_a_level_of_several_channels_that_stays_is_accepted_after_200_readings() -> None:
    detector = settled(3)
    opened, *others, ended = detector.step(after(calm(201, 3) + 15)).alerts
    assert others == []
    assert (opened.alert_id, ended.resolution) == (ended.alert_id, Resolution.ACCEPTED)
    assert ended.end == opened.start + 199 * INTERVAL
    assert detector.open_alerts() == []


def test_a_channel_that_moves_alone_contributes_most() -> None:
    values = calm(1, 3)
    values[0, 1] += 30
    [alert] = settled(3).step(after(values)).alerts
    assert max(alert.contributions, key=lambda c: alert.contributions[c]) == "c1"
    assert 0 < sum(alert.contributions.values()) <= 1 + 1e-6
    assert alert.actual.keys() == alert.contributions.keys() == alert.expected.keys() == alert.band.keys()


def test_an_alert_names_five_channels_at_most() -> None:
    [alert] = settled(7).step(after(calm(1, 7) + 30)).alerts
    assert len(alert.contributions) == 5
    assert sum(alert.contributions.values()) < 1


def test_no_alert_opens_in_the_fifty_readings_after_a_gap() -> None:
    detector, values = settled(), calm(120)
    values[:50] += 15
    quiet = detector.step(after(values[:50], first=CALM + 100))
    assert of(Kind.FORECAST, quiet.alerts) == []
    assert quiet.scores.max() <= 1.0


def test_silence_is_told_once_by_a_tick_and_resolves_nothing() -> None:
    detector = settled()
    detector.step(after(calm(3) + 15))
    last, limit = at(CALM + 2), 5 * INTERVAL
    assert detector.apply(Tick(0, last + limit)).alerts == []
    assert detector.apply(Tick(1, last + 10 * limit)).alerts == []  # another partition
    [gap] = detector.apply(Tick(0, last + limit + 1)).alerts
    assert (gap.kind, gap.state, gap.start, gap.end) == (Kind.GAP, State.FIRING, last, None)
    assert (gap.measure, gap.limit, gap.unit) == ((limit + 1) / SECOND, limit / SECOND, "s")
    assert detector.apply(Tick(0, last + 9 * limit)).alerts == []
    assert {a.kind for a in detector.open_alerts()} == {Kind.FORECAST, Kind.GAP}
    assert detector.census()["silent"] == 1


def test_a_gap_has_the_same_id_and_end_whether_a_tick_or_the_next_reading_notices_it() -> None:
    by_tick, by_arrival = settled(), settled()
    told = by_tick.apply(Tick(0, at(CALM + 6))).alerts
    back = after(calm(1), first=CALM + 30)
    told += by_tick.step(back).alerts
    noticed = by_arrival.step(back).alerts
    assert [(a.alert_id, a.state, a.start, a.end, a.revision) for a in told] == [
        (a.alert_id, a.state, a.start, a.end, a.revision) for a in noticed
    ]
    assert (noticed[1].resolution, noticed[1].end) == (Resolution.RETURNED, at(CALM + 30))
    assert noticed[1].alert_id == alert_id("s", Kind.GAP, "", at(CALM - 1))
    assert by_tick.open_alerts() == by_arrival.open_alerts() == []
    assert_same_state(by_tick, by_arrival)


def test_a_gap_ends_with_the_next_reading_even_if_the_tick_was_ahead_of_it() -> None:
    detector, never_told = settled(), settled()
    [gap] = detector.apply(Tick(0, at(CALM + 50))).alerts  # other sensors of the partition are that far
    [ended] = detector.step(after(calm(1))).alerts
    assert (ended.alert_id, ended.state, ended.end) == (gap.alert_id, State.RESOLVED, at(CALM))
    never_told.step(after(calm(1)))
    assert_same_state(detector, never_told)


def test_a_tick_before_any_reading_says_nothing() -> None:
    assert Detector(models.model(), RULES).apply(Tick(0, at(10**6))).alerts == []


def test_retiring_a_sensor_resolves_all_that_is_open_and_forgets_it() -> None:
    detector = settled()
    fired = detector.step(after(np.full(12, 120.0))).alerts
    fired += detector.apply(Tick(0, at(CALM + 30))).alerts
    assert {a.kind for a in fired} == set(Kind) - {Kind.CLOCK, Kind.INPUT_SILENT}  # see test_stamps, test_silence
    ended = detector.apply(Retire("s", at(CALM + 31))).alerts
    assert {a.alert_id for a in ended} == {a.alert_id for a in fired}
    assert {(a.state, a.resolution, a.end) for a in ended} == {(State.RESOLVED, Resolution.RETIRED, at(CALM + 31))}
    assert {a.revision for a in ended} == {2}
    assert detector.describe("s") is None
    assert detector.open_alerts() == detector.apply(Retire("s", at(CALM + 32))).alerts == []


def test_stuck_and_limit_alerts_carry_a_measure_its_limit_and_unit_and_no_score() -> None:
    values = np.r_[np.full(15, 120.0), calm(6)[:, 0]]
    alerts = settled().step(after(values)).alerts
    beyond, within = of(Kind.LIMIT, alerts)
    assert (beyond.start, beyond.measure, beyond.limit, beyond.unit) == (at(CALM), 120.0, 100.0, "bar")
    assert (within.alert_id, within.end, within.limit) == (beyond.alert_id, at(CALM + 19), 100.0)
    still, moving = of(Kind.STUCK, alerts)
    assert (still.start, still.last, still.measure, still.limit) == (at(CALM), at(CALM + 9), 10.0, 10.0)
    assert (moving.alert_id, moving.end, moving.measure) == (still.alert_id, at(CALM + 15), 15.0)
    assert {(a.channel, a.score, a.threshold) for a in (beyond, within, still, moving)} == {("c0", None, None)}
    assert still.unit == "readings"
    assert (still.detection_delay_ms, beyond.detection_delay_ms, moving.detection_delay_ms) == (9 * 60_000, 0, None)


@pytest.mark.parametrize(("value", "limit"), [(120.0, 100.0), (-120.0, -100.0)])
def test_an_open_limit_alert_names_the_limit_that_was_crossed(value: float, limit: float) -> None:
    detector = settled()
    [opened] = of(Kind.LIMIT, detector.step(after(np.array([value, 20.0]))).alerts)
    [standing] = of(Kind.LIMIT, detector.open_alerts())
    assert (standing.alert_id, standing.limit, standing.measure) == (opened.alert_id, limit, 20.0)


@pytest.mark.parametrize(("blocks", "score", "extrapolated"), [(10, 2.6, False), (10, 2.8, True), (60, 3.4, False)])
def test_a_score_beyond_one_episode_in_all_that_was_seen_is_marked_as_extrapolated(
    blocks: int, score: float, extrapolated: bool
) -> None:
    table = SensorTable(layout(models.model()))
    [row], _ = table.locate(["s"], np.zeros(1, np.int64))
    table.arrays.blocks[row, :blocks] = 1.0  # of fifty readings each
    reporter = Reporter(models.model(), table, RULES, 2.0, 1e-2)
    assert reporter.forecast(int(row), "opened", score).extrapolated is extrapolated


def test_a_channel_that_never_moved_in_its_first_window_is_constant_by_nature() -> None:
    detector = Detector(models.model(), RULES)
    assert detector.step(models.one(np.full(120, 7.0))).alerts == []


def test_every_alert_that_ends_was_told_before_and_what_was_told_and_did_not_end_is_open() -> None:
    batch = models.stream(models.waves(4, 560), partitions=2, dropped=0.03)
    rules = replace(RULES, budget=Budget.parse("1/25/sensor"), bounds=(Bound("*", "c0", 14, 26),))
    detector, kinds = Detector(models.model(), rules), set()
    revisions: dict[str, int] = {}
    for start in range(0, len(batch), 60):
        part = batch.take(slice(start, start + 60))
        told = detector.step(part).alerts + detector.apply(Tick(start % 2, int(part.times.max()))).alerts
        for alert in told:
            assert alert.revision == revisions.get(alert.alert_id, 0) + 1
            assert (alert.state is State.FIRING) == (alert.revision == 1)
            revisions[alert.alert_id] = alert.revision
            if alert.state is State.RESOLVED:
                del revisions[alert.alert_id]
                kinds.add(alert.kind)
        assert {a.alert_id: a.revision for a in detector.open_alerts()} == revisions
    assert kinds == set(Kind) - {Kind.CLOCK, Kind.INPUT_SILENT}  # see test_stamps, test_silence


def test_alerts_come_in_the_order_of_the_readings_that_raised_them() -> None:
    values = np.repeat(calm(90)[:, None], 3, axis=1)
    values[70, 2] = values[72, 0] = values[75, 1] = 500.0
    told = Detector(models.model(), RULES).step(models.stream(values)).alerts
    assert [a.sensor for a in told] == ["s2", "s0", "s1", "s2", "s0", "s1"]
    assert [a.last for a in told] == [at(reading) for reading in (70, 72, 75, 75, 77, 80)]
