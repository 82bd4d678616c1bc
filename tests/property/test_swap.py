"""Another model takes over in mid-stream: no alert is lost, no score is lost, and it happens at one place only."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.core.alerts import Kind, State
from pipeline.core.detector import Detector
from pipeline.core.events import Bound, Rules, Swap
from pipeline.core.model import Model, Network, SensorTables
from pipeline.core.readings import ReadingBatch
from pipeline.core.table import TRAINED, UNSEEN, Arrays, Clock, Count, Lane, Tally
from pipeline.core.thresholds import Budget
from tests import models

RULES = Rules(budget=Budget.parse("1/25/sensor"), bounds=(Bound("*", "c0", 14.0, 26.0, "bar"),))
HISTORY, LATER = 400, 130  # readings: what the bundles were made of, and what comes then
FEW = settings(max_examples=8, deadline=None)  # each follows a stream
AT = st.integers(0, 2 * LATER)


@cache
def history() -> ReadingBatch:
    return models.stream(models.waves(2, HISTORY))


@cache
def later() -> ReadingBatch:
    """Both sensors after their history; one jumps, so that an alert is open while models are swapped."""
    values = models.waves(2, HISTORY + LATER)[HISTORY:]
    values[70:82, 1] += 9
    batch = models.stream(values)
    shift = HISTORY * models.INTERVAL
    return replace(
        batch, times=batch.times + shift, received=batch.received + shift, offsets=batch.offsets + len(history())
    )


@cache
def version(number: int) -> Model:
    """Bundles of the same sensors with other weights."""
    return models.learnt(models.model(version=str(number), seed=number), history())


def parts(*cuts: int) -> list[ReadingBatch]:
    return [later().take(slice(a, b)) for a, b in pairwise([0, *sorted(cuts), len(later())])]


def scores_of(detector: Detector, batches: Iterable[ReadingBatch]) -> np.ndarray:
    return np.concatenate([detector.step(batch).scores for batch in batches])


def state_of(detector: Detector) -> Arrays:
    return detector.snapshot(0)


def assert_same(mine: Arrays, theirs: Arrays) -> None:
    for name in mine:
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)


@FEW
@given(at=AT)
def test_a_swap_tells_nothing_closes_nothing_and_leaves_every_score_finite(at: int) -> None:
    detector = Detector(version(1), RULES)
    before, after = parts(at)
    detector.step(before)
    standing = {a.alert_id: (a.kind, a.start, a.revision) for a in detector.open_alerts()}
    outcome = detector.apply(Swap(version(2)))
    assert (outcome.alerts, len(outcome.scores)) == ([], 0)
    assert {a.alert_id: (a.kind, a.start, a.revision) for a in detector.open_alerts()} == standing
    assert {a.model for a in detector.open_alerts()} <= {version(2).ref}
    then = detector.step(after)
    assert np.isfinite(then.scores).all()
    assert then.counts == ({"scored": len(after)} if len(after) else {})
    ended = {a.alert_id for a in then.alerts if a.state is State.RESOLVED}
    told = {a.alert_id for a in then.alerts}
    assert {a.alert_id for a in detector.open_alerts()} == (standing.keys() | told) - ended


def test_the_alert_of_these_tests_is_open_at_a_swap_and_ends_under_the_new_model() -> None:
    detector = Detector(version(1), replace(RULES, budget=Budget.parse("1/10000/sensor")))
    before, after = parts(2 * 78)
    detector.step(before)
    [opened] = [a for a in detector.open_alerts() if a.kind is Kind.FORECAST and a.sensor == "s1"]
    detector.apply(Swap(version(2)))
    [ended] = [a for a in detector.step(after).alerts if a.alert_id == opened.alert_id]
    assert (ended.state, ended.revision, ended.model) == (State.RESOLVED, opened.revision + 1, version(2).ref)


@FEW
@given(swap=AT, cut=AT, others=st.lists(AT, max_size=4))
def test_restoring_after_a_swap_and_cutting_the_stream_elsewhere_change_nothing(
    swap: int, cut: int, others: list[int]
) -> None:
    swap, cut = sorted((swap, cut))
    whole, other = Detector(version(1), RULES), Detector(version(1), RULES)
    head, body, tail = parts(swap, cut)
    whole.step(head)
    scores_of(other, (head.take(slice(a, b)) for a, b in pairwise([0, *sorted(min(o, swap) for o in others), swap])))
    for detector in (whole, other):
        detector.apply(Swap(version(2)))
        detector.step(body)
    restarted = Detector(version(2), RULES)
    restarted.restore(0, state_of(other))
    mine, theirs = whole.step(tail), restarted.step(tail)
    np.testing.assert_array_equal(mine.scores, theirs.scores)
    assert mine.alerts == theirs.alerts
    assert_same(state_of(whole), state_of(restarted))


@FEW
@given(at=AT)
def test_swapping_twice_is_swapping_once(at: int) -> None:
    once, twice = Detector(version(1), RULES), Detector(version(1), RULES)
    for detector in (once, twice):
        detector.step(parts(at)[0])
        detector.apply(Swap(version(2)))
    twice.apply(Swap(version(2)))
    assert_same(state_of(once), state_of(twice))


@FEW
@given(at=AT)
def test_a_restart_under_another_model_is_a_swap(at: int) -> None:
    running, restarted = Detector(version(1), RULES), Detector(version(2), RULES)
    before, after = parts(at)
    running.step(before)
    restarted.restore(0, state_of(running))
    restarted.adopt(0)
    running.apply(Swap(version(2)))
    assert_same(state_of(running), state_of(restarted))
    assert running.step(after).alerts == restarted.step(after).alerts


def test_what_a_sensor_has_not_sent_yet_is_news_even_if_the_new_model_was_trained_on_it() -> None:
    tables = {name: table.copy() for name, table in version(2).sensors.arrays.items()}
    tables["clock"][:, Clock.LEARN_FROM] = later().times[-1] + 1
    before, after = parts(2 * 65)
    detector = Detector(version(1), RULES)
    detector.step(before)
    detector.apply(Swap(replace(version(2), sensors=replace(version(2).sensors, arrays=tables))))
    assert next(a.sensor for a in detector.step(after).alerts if a.kind is Kind.FORECAST) == "s1"


def test_the_same_weights_under_another_version_forecast_nearly_as_before() -> None:
    same = replace(version(1), ref=replace(version(1).ref, version="7"))
    stayed, swapped = Detector(version(1), RULES), Detector(version(1), RULES)
    before, after = parts(150)
    for detector in (stayed, swapped):
        detector.step(before)
    swapped.apply(Swap(same))
    mine, theirs = swapped.step(after), stayed.step(after)
    np.testing.assert_allclose(mine.expected, theirs.expected, atol=1e-3)  # the state of a window, not of all before it
    assert swapped.model.ref.version == "7"


def test_a_windowed_forecaster_forecasts_as_if_it_had_always_served() -> None:
    old, new = (
        replace(models.model(seed=seed, mode="windowed"), sensors=version(1).sensors, prior=version(1).prior)
        for seed in (1, 2)
    )
    always, swapped = Detector(new, RULES), Detector(old, RULES)
    before, after = later().take(slice(0, 140)), later().take(slice(140, 150))
    for detector in (always, swapped):
        detector.step(before)
    swapped.apply(Swap(new))
    np.testing.assert_array_equal(swapped.step(after).expected, always.step(after).expected)


@pytest.mark.parametrize(
    "other", [{"channels": 2}, {"hidden": 5}, {"window": 80}, {"layers": 2}], ids=lambda other: next(iter(other))
)
def test_a_model_of_another_shape_is_refused_in_a_sentence_and_nothing_changes(other: dict[str, int]) -> None:
    detector = Detector(version(1), RULES)
    detector.step(parts(40)[0])
    before = state_of(detector)
    with pytest.raises(
        ValueError, match="group g: version 9 has other channels or another size than 1; stop the service"
    ):
        detector.apply(Swap(models.model(version="9", **other)))
    assert detector.model is version(1)
    assert_same(state_of(detector), before)


def test_what_the_new_bundle_says_of_a_sensor_replaces_what_was_known() -> None:
    tables = {name: table.copy() for name, table in version(2).sensors.arrays.items()}
    tables["scale"][1] = 3.0, 7.0
    tables["tally"][1, :, Tally.STUCK_LIMIT] = 33
    detector = Detector(version(1), RULES)
    detector.step(parts(80)[0])
    detector.apply(Swap(replace(version(2), sensors=SensorTables(["s0", "s1"], tables))))
    now = state_of(detector)
    assert now["scale"][1, 0].tolist() == [3.0, 7.0]
    assert now["tally"][1, 0, Tally.STUCK_LIMIT] == 33
    np.testing.assert_array_equal(now["tail"][1], tables["tail"][1])
    assert not now["pending"].any()


def test_a_sensor_that_the_new_bundle_does_not_know_keeps_what_is_usual_for_it() -> None:
    detector = Detector(version(1), RULES)
    detector.step(parts(80)[0])
    before = state_of(detector)
    before["count"][:, Count.NETWORK] = 5  # of the old bundle's own networks
    detector.restore(0, before)
    stranger = replace(version(2), sensors=SensorTables((), {}))
    detector.apply(Swap(stranger))
    now = state_of(detector)
    for name, columns in (("scale", slice(None)), ("lane", [Lane.LOW, Lane.HIGH]), ("tally", Tally.STUCK_LIMIT)):
        np.testing.assert_array_equal(now[name][..., columns], before[name][..., columns], err_msg=name)
    np.testing.assert_array_equal(now["clock"][:, Clock.GAP_LIMIT], before["clock"][:, Clock.GAP_LIMIT])
    assert now["count"][:, [Count.NETWORK, Count.FITTED]].tolist() == [[0, UNSEEN]] * 2
    assert detector.census()["warming"] == 0
    assert np.isfinite(detector.step(parts(80)[1]).scores).all()


def test_a_network_is_believed_as_far_as_it_came_true_only_while_it_does_not_know_the_sensor() -> None:
    """Each bundle's network foretells a rise that never comes; what it says is cut once the sensor is unseen."""
    known, stranger = (replace(version(n), network=rising(version(n))) for n in (1, 2))
    stranger = replace(stranger, sensors=SensorTables((), {}))
    detector = Detector(known, RULES)
    still = models.waves(1, 400, seed=5)[:1, 0]
    told = []
    for number, model in enumerate((known, stranger, known)):
        detector.apply(Swap(model))
        batch = models.one(np.repeat(still, 130, axis=0), "s0", first=HISTORY + 130 * number)
        told.append(detector.step(batch).expected[-1, 0] - still[0, 0])
        assert state_of(detector)["count"][0, Count.FITTED] == (UNSEEN if model is stranger else TRAINED)
    assert told[0] == told[2] > 20 * abs(told[1])


def rising(model: Model) -> Network:
    """Its network, foretelling a rise by 0.1 in asinh(x) whatever it has read."""
    head = np.zeros_like(model.network.head)
    return replace(model.network, head=head, head_bias=np.full_like(model.network.head_bias, 0.1))


def test_a_sensor_still_warming_up_is_scored_at_once_by_a_bundle_that_knows_it() -> None:
    detector = Detector(replace(version(1), sensors=SensorTables((), {})), RULES)
    before, after = parts(2 * 10)
    assert detector.step(before).counts == {"warming": 20}
    detector.apply(Swap(version(2)))
    assert detector.step(after).counts == {"scored": len(after)}


def test_what_waited_to_be_counted_under_the_old_model_is_not_counted_under_the_new() -> None:
    detector = Detector(version(1), RULES)
    for part in parts(*range(2, 60, 2))[:-1]:  # one reading of each sensor
        detector.step(part)
        assert state_of(detector)["pending"].max() == 1
        detector.apply(Swap(version(2)))
        assert not state_of(detector)["pending"].any()
