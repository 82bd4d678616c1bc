"""A budget in the operator's words becomes the score at which it is spent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.core.readings import DAY, SECOND
from pipeline.core.thresholds import PERIODS, Budget

MINUTE, HOUR = 60 * SECOND, 3600 * SECOND
UNITS = {"minute": MINUTE, "hour": HOUR, "day": DAY, "week": 7 * DAY, "month": 30 * DAY}


@pytest.mark.parametrize(("unit", "period"), UNITS.items())
def test_a_budget_names_alarms_a_period_and_who_shares_them(unit: str, period: int) -> None:
    assert Budget.parse(f"20/{unit}/fleet") == Budget(20.0, period, None, "fleet")
    assert Budget.parse(f" 0.5/{unit}/sensor\n") == Budget(0.5, period, None, "sensor")


def test_every_period_is_one_that_these_tests_know() -> None:
    assert PERIODS == UNITS


def test_a_budget_may_count_readings_instead_of_time() -> None:
    assert Budget.parse("1/10000/sensor") == Budget(1.0, None, 10_000, "sensor")


@pytest.mark.parametrize(
    ("text", "interval", "sensors", "threshold"),
    [
        ("1/10000/sensor", MINUTE, 1, 4.0),
        ("1/10000/sensor", HOUR, 500, 4.0),  # readings need no clock, and a sensor's budget no fleet
        ("10/1000/sensor", MINUTE, 1, 2.0),
        ("1/1000/fleet", MINUTE, 100, 5.0),
        ("1/day/sensor", MINUTE, 7, 3.1583625),  # log10(1440)
        ("20/day/fleet", MINUTE, 100, 3.8573325),  # log10(1440 * 100 / 20)
        ("1/week/sensor", HOUR, 1, 2.2253093),  # log10(168)
        ("1/month/fleet", 300 * SECOND, 10, 4.9365137),  # log10(8640 * 10)
        ("2.5/hour/sensor", SECOND, 1, 3.1583625),  # log10(3600 / 2.5)
        ("1/minute/sensor", SECOND, 1, 1.7781513),  # log10(60)
    ],
)
def test_the_threshold_is_the_score_expected_that_often(
    text: str, interval: int, sensors: int, threshold: float
) -> None:
    assert Budget.parse(text).threshold(interval, sensors) == pytest.approx(threshold, abs=1e-6)


def test_a_budget_of_an_alarm_a_reading_still_asks_for_something_unusual() -> None:
    assert Budget.parse("60/hour/sensor").threshold(MINUTE, 1) == 1.0


def test_a_fleet_without_sensors_is_one_sensor() -> None:
    assert Budget.parse("1/day/fleet").threshold(MINUTE, 0) == Budget.parse("1/day/sensor").threshold(MINUTE, 1)


@given(
    alarms=st.integers(1, 10**6),
    unit=st.sampled_from([*UNITS, "10000"]),
    scope=st.sampled_from(["sensor", "fleet"]),
    interval=st.integers(1, DAY),
    sensors=st.integers(1, 10**6),
)
def test_more_alarms_never_raise_a_threshold_and_more_sensors_never_lower_it(
    alarms: int, unit: str, scope: str, interval: int, sensors: int
) -> None:
    threshold = Budget.parse(f"{alarms}/{unit}/{scope}").threshold(interval, sensors)
    assert Budget.parse(f"{alarms + 1}/{unit}/{scope}").threshold(interval, sensors) <= threshold
    assert Budget.parse(f"{alarms}/{unit}/{scope}").threshold(interval, sensors + 1) >= threshold


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not a budget; examples: 20/day/fleet, 1/week/sensor or 1/10000/sensor"),
        ("few", "is not a budget"),
        ("1/day", "is not a budget"),
        ("-1/day/fleet", "is not a budget"),
        ("1e3/day/fleet", "is not a budget"),
        ("1/day/plant", "is not a budget"),
        ("1/Day/fleet", "is not a budget"),
        ("\u0663/day/fleet", "is not a budget"),  # a digit, but not one of ours
        ("9" * 5000 + "/day/fleet", "is not a budget"),
        ("1/" + "9" * 400 + "/sensor", "is not a budget"),
        ("1/fortnight/sensor", "'fortnight' is not a period; use minute, hour, day, week, month or a number"),
        ("0/day/fleet", "allows no alarm at all"),
        ("0.000/day/fleet", "allows no alarm at all"),
        ("1/0/sensor", "allows no alarm at all"),
        ("1/000/sensor", "allows no alarm at all"),
    ],
)
def test_what_is_no_budget_is_refused_in_a_sentence(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason.replace(".", r"\.")):
        Budget.parse(text)


@given(st.text(max_size=30) | st.from_regex(r"\A[0-9.]*/[a-z0-9]*/(sensor|fleet)\Z"))
def test_any_text_is_a_budget_with_a_threshold_or_is_refused(text: str) -> None:
    try:
        budget = Budget.parse(text)
    except ValueError:
        return
    assert 1.0 <= budget.threshold(1, 10**6) < 50.0
