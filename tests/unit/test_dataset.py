"""Training reads what the detector would have taken in, grouped by kind and split in time."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.adapters.files import DataError, Series
from pipeline.core import scaling
from pipeline.core.readings import DAY, SECOND
from training.dataset import (
    FEWEST_ROWS,
    history,
    in_time,
    interval_name,
    prepare,
    sampling_interval,
    sensor_statistics,
    target_channels,
    training_part,
)

MINUTE = 60 * SECOND
NAN = float("nan")


def series(sensor: str, columns: dict[str, list[float]], interval: int = MINUTE) -> Series:
    values = np.array(list(columns.values()), dtype=np.float64).T
    return Series(sensor, interval * np.arange(len(values), dtype=np.int64), tuple(columns), values)


def ramp(sensor: str, rows: int = 100, channels: tuple[str, ...] = ("value",), interval: int = MINUTE) -> Series:
    return series(sensor, {c: list(np.arange(rows) + 0.5) for c in channels}, interval)


def test_the_training_part_is_the_head_of_each_series() -> None:
    parts = training_part([ramp("long", 10_000), ramp("short", 100)], fraction=0.15, max_rows=750)
    assert [len(part) for part in parts] == [750, 15]
    with pytest.raises(ValueError, match=r"above 0 and at most 1, not 1\.5"):
        training_part([], fraction=1.5)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        training_part([], max_rows=0)


def test_sensors_are_grouped_by_channels_in_any_order_and_by_interval() -> None:
    both = ("flow", "heat")
    slow = ramp("c", channels=both, interval=5 * MINUTE)
    found = prepare([ramp("b", channels=both), ramp("a", channels=both[::-1]), slow, ramp("d")]).groups
    assert [(g.name, [h.sensor for h in g.histories]) for g in found] == [
        ("heat+1-1min", ["a", "b"]),
        ("flow+1-5min", ["c"]),
        ("value-1min", ["d"]),
    ]
    assert found[0].channels == ("heat", "flow")


def test_groups_that_would_share_a_name_are_told_apart() -> None:
    first, second = prepare([ramp("a", channels=("gas flow/in",)), ramp("b", channels=("gas-flow in",))]).groups
    assert (first.name, second.name) == ("gas-flow-in-1min", "gas-flow-in-1min-2")


@pytest.mark.parametrize(
    ("apart_seconds", "name"),
    [(0.0371, "37ms"), (1, "1s"), (70, "70s"), (299.4, "5min"), (3601, "1h"), (5400, "90min"), (86400, "1d")],
)
def test_an_interval_is_the_usual_time_between_readings_to_two_digits(apart_seconds: float, name: str) -> None:
    times = np.round(np.array([0, 1, 2, 3, 3.1, 90, 91, 92]) * apart_seconds * SECOND).astype(np.int64)
    interval = sampling_interval(times)
    assert interval is not None
    assert interval_name(interval) == name


def test_late_duplicate_and_empty_readings_are_left_out() -> None:
    times = np.array([0, 1, 1, 3, 2, 4, 5]) * MINUTE
    values = np.array([[1.0], [2.0], [9.0], [3.0], [9.0], [NAN], [4.0]])
    kept = in_time(Series("a", times, ("value",), values))
    assert kept.values[:, 0].tolist() == [1, 2, 3, 4]


def test_a_history_is_cut_at_gaps_and_its_end_is_held_out() -> None:
    times = np.r_[0:1000, 1060:3060].astype(np.int64) * MINUTE
    cut = history(Series("a", times, ("value",), np.ones((3000, 1))), ("value",), MINUTE)
    assert cut.fit_segments() == [slice(0, 1000), slice(1000, 2100)]
    assert cut.held_out_segments() == [slice(2100, 3000)]
    assert cut.gap_limit == 5 * MINUTE


def test_a_missing_value_is_the_last_one_and_marked() -> None:
    gappy = series("a", {"x": [NAN, 1, NAN, 2, 3], "y": [NAN] * 5, "z": [1, 1, 1, 1, 1]})
    filled = history(gappy, ("x", "y"), MINUTE)
    np.testing.assert_array_equal(filled.values, np.array([[2, 1, 1, 2, 3], [0] * 5]).T)
    np.testing.assert_array_equal(filled.missing[:, 0], [True, False, True, False, False])
    assert filled.missing[:, 1].all()


def test_a_switch_is_an_input_and_a_constant_channel_is_a_target() -> None:
    rows = {"heat": [1.0, 2, 3], "valve": [0.0, 1, 0], "door": [0.0, 0, 0], "level": [1.0, 1, 1]}
    assert target_channels(tuple(rows), [series("a", rows)]) == ("heat", "door", "level")
    assert target_channels(("valve",), [series("a", rows)]) == ("valve",)


def test_a_channel_at_rest_is_a_command_only_among_commands() -> None:
    commands = {"heat": [1.0, 2, 3], "command_1": [0.0, 1, 0], "command_2": [0.0, 0, 0]}
    assert target_channels(tuple(commands), [series("a", commands)]) == ("heat",)
    mixed = {"channel_0": [1.0, 2, 3], "channel_1": [0.0, 1, 0], "channel_2": [0.0, 0, 0]}
    assert target_channels(tuple(mixed), [series("a", mixed)]) == tuple(mixed)


def test_what_was_decided_about_a_group_is_noted() -> None:
    rows = FEWEST_ROWS
    long = series("long", {"x": [1.5] * rows, "y": [NAN] * rows, "z": list(range(rows))})
    half = series("half", {"x": [NAN] * rows, "y": [NAN] * rows, "z": list(range(rows))})
    one = series("one", {"x": [1.0], "y": [NAN], "z": [3.0]})
    [group] = prepare([long, half, one]).groups
    assert group.channels == ("x", "z")
    assert group.notes == (
        "channel 'y' has no value in any sensor: left out",
        "fewer than 60 readings, so served but not fitted on: 1 sensor (one)",
        "channel 'x' has no value, so it is taken as 0, in 1 sensor (half)",
        "channel 'x' never changes, so any change counts, in 1 sensor (long)",
    )
    assert [h.enough for h in group.histories] == [True, True, False]


def test_sensors_that_cannot_be_trained_are_named_beside_those_that_can() -> None:
    found = prepare([ramp("a"), ramp("b", 59, ("flow",)), ramp("c", 1, ("heat",))])
    assert [g.name for g in found.groups] == ["value-1min"]
    assert found.left_out == (
        "c: 1 usable readings do not tell its sampling interval; not trained",
        "b: no sensor of this kind has 60 readings with a value; not trained",
    )


def test_without_a_sensor_long_enough_there_is_nothing_to_train() -> None:
    with pytest.raises(DataError, match=r"no sensor has 60 readings .* longest, 'b', has 59 rows.; give more history"):
        prepare([ramp("a", 1), ramp("b", 59)])
    with pytest.raises(DataError, match="has 100 rows"):
        prepare([series("a", {"x": [NAN] * 100})])
    with pytest.raises(DataError, match="there are none"):
        prepare([])


def test_scikit_learn_and_the_serving_code_see_the_same_statistics() -> None:
    rng = np.random.default_rng(7)
    values = np.stack([rng.normal(5, 2, 200), np.full(200, 3.0), rng.random(200) < 0.1, np.full(200, NAN)], axis=1)
    values[::7, 0] = NAN
    past = history(Series("a", np.arange(200) * DAY, tuple("abcd"), values), tuple("abcd"), DAY)
    for ours, served in zip(sensor_statistics(past), scaling.statistics(values[:140]), strict=True):
        np.testing.assert_allclose(ours, served, rtol=1e-3, atol=1e-12)
