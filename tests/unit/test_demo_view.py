"""The view shows what matters first, on a terminal and without one."""

from __future__ import annotations

import math
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console, RenderableType

from pipeline.core.alerts import Alert, Evidence, Kind, ModelRef, Resolution, Severity, State
from pipeline.demo.faults import Fault, FaultKind
from pipeline.demo.plant import INTERVAL, START
from pipeline.demo.verdict import Judgement, Verdict
from pipeline.demo.view import COLUMN_READINGS, DemoView, Trace, picture, sparkline, verdict_tables

SENSORS = ("plant1/pump-01", "plant1/pump-02", "plant1/tank-01")
OPENED = Alert(
    alert_id="0123456789abcdef",
    revision=1,
    state=State.FIRING,
    kind=Kind.FORECAST,
    severity=Severity.WARNING,
    sensor="plant1/pump-02",
    start=START,
    last=START + 2 * INTERVAL,
    evidence=Evidence(0, 10, 12),
    model=ModelRef("pump", "1", "ab"),
    score=5.25,
    threshold=4.0,
    expected={"flow": 80.0},
    actual={"flow": 91.5},
    contributions={"pressure": 0.2, "flow": 0.8},
)
RESOLVED = replace(OPENED, revision=2, state=State.RESOLVED, end=START + 45 * INTERVAL, resolution=Resolution.RETURNED)
SILENT = replace(
    OPENED,
    alert_id="fedcba9876543210",
    kind=Kind.GAP,
    sensor="plant1/tank-01",
    contributions={},
    measure=360.0,
    limit=300.0,
    unit="s",
)


class Clock:
    """Stands still until it is told otherwise."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def _text(render: RenderableType, width: int = 118) -> str:
    console = Console(file=StringIO(), width=width, height=45, force_terminal=False)
    with console.capture() as capture:
        console.print(render)
    return capture.get()


def _view(terminal: bool, clock: Clock) -> tuple[DemoView, StringIO]:
    out = StringIO()
    console = Console(file=out, width=118, height=45, force_terminal=terminal, color_system=None)
    view = DemoView(console, SENSORS, "embedded", clock)
    for sensor in SENSORS:
        for channel in ("pressure", "flow"):
            view.point(sensor, channel, 1.0, 1.0)
    return view, out


def test_the_frame_tells_readings_a_second_lag_and_event_time() -> None:
    clock = Clock()
    view, _ = _view(True, clock)
    view.readings(4000, START)
    view.lag(37)
    clock.now = 2.0
    view.refresh()
    frame = _text(view.render())
    assert all(word in frame for word in ("embedded", "Mon 00:00", "4,000", "2,000", "37"))


def test_a_sensor_with_an_open_alert_comes_first_with_the_channel_that_contributed_most() -> None:
    view, _ = _view(True, Clock())
    assert _text(view.render()).index("plant1/pump-01") < _text(view.render()).index("plant1/pump-02")
    view.alert(OPENED)
    lines = _text(view.render()).splitlines()
    first = next(line for line in lines if "plant1/" in line)
    assert first.split()[:2] == ["plant1/pump-02", "flow"]
    assert "forecast" in first
    assert any("score 5.25 over 4: 91.5, expected 80" in line for line in lines)


def test_a_resolved_alert_says_why_and_is_no_longer_open() -> None:
    view, _ = _view(True, Clock())
    view.alert(OPENED)
    view.alert(replace(OPENED, revision=2, state=State.UPDATE))
    view.alert(RESOLVED)
    frame = _text(view.render())
    assert "returned after 45 min" in frame
    assert "update" not in frame
    assert next(line for line in frame.splitlines() if "embedded" in line).split()[-1] == "0"


def test_without_a_terminal_alerts_and_progress_are_plain_lines() -> None:
    clock = Clock()
    view, out = _view(False, clock)
    with view:
        view.alert(SILENT)
        view.refresh()
        clock.now = 10.0
        view.readings(5000, START)
        view.refresh()
    alert, progress = out.getvalue().splitlines()
    assert alert == "Mon 00:02  firing    gap plant1/tank-01  360 s, limit 300 s"
    assert progress.endswith("readings 5,000  readings/s 500  lag 0  alerts open 1")
    assert "\x1b" not in out.getvalue()


def test_on_a_terminal_frames_are_drawn_in_place_at_a_bounded_rate() -> None:
    clock = Clock()
    view, out = _view(True, clock)
    with view:
        before = out.tell()
        view.refresh()
        assert out.tell() == before
        clock.now = 1.0
        view.refresh()
        assert out.tell() > before


def test_a_column_shows_the_reading_furthest_from_its_forecast() -> None:
    trace = Trace()
    for actual in (1.0, 9.0, 2.0, 1.0, 3.0):
        trace.add(actual, 1.0, alarmed=False)
    assert COLUMN_READINGS == 4
    assert [column[0] for column in trace.columns] == [9.0, 3.0]
    assert trace.actual == 3.0


def test_actual_and_expected_share_a_scale_and_alarm_is_red() -> None:
    line = sparkline([(0.0, 0.0, False), (7.0, 1.0, True), (3.0, math.nan, False)])
    assert line.plain == "▁█▄\n▁▂ "
    assert [span.style for span in line.spans[:2]] == ["cyan", "bold red"]


@pytest.mark.parametrize("columns", [[], [(math.nan, math.nan, False)], [(2.0, 2.0, False)]])
def test_a_flat_or_empty_signal_is_drawn_too(columns: list[tuple[float, float, bool]]) -> None:
    assert len(sparkline(columns).plain) == 2 * len(columns) + 1


def test_the_verdict_fits_80_columns_and_counts_each_kind() -> None:
    fault = Fault(FaultKind.DRIFT, "a", "flow", 500, 999, 4.0)
    verdict = Verdict(
        "embedded", 120.0, 20.0, 90.0, Judgement({fault: 140}, 3, 20_000), Judgement({fault: None}, 0, 20_000)
    )
    text = _text(verdict_tables(verdict), width=80)
    row = next(line for line in text.splitlines() if "slow drift" in line)
    assert row.split() == ["slow", "drift", "1", "1", "0", "140", "0", "-"]
    assert "3 false alarms, 1.50 in 10,000 readings" in text
    assert "20 ms (median), 90 ms (99 %)" in text


def test_a_picture_fetches_nothing() -> None:
    view, _ = _view(True, Clock())
    svg = picture(view.render(), "foreshock demo")
    assert svg.startswith("<svg")
    assert "plant1" in svg
    assert "url(http" not in svg
    assert "src:" not in svg
