"""What is under alert, or called bad by its sender, is not there for training: neither as readings nor as silence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.adapters.files import DataError, Series
from pipeline.codecs.json import encode_alert
from pipeline.core.alerts import Alert, Evidence, Kind, ModelRef, Resolution, Severity, State
from pipeline.core.readings import SECOND
from training.dataset import history, prepare, unmasked
from training.masking import FOREVER, MARGIN_INTERVALS, Mask, episodes, mask, read_alerts

MINUTE = 60 * SECOND
FIRING = Alert(
    alert_id="a1", revision=1, state=State.FIRING, kind=Kind.FORECAST, severity=Severity.WARNING, sensor="pump",
    start=100 * MINUTE, last=110 * MINUTE, evidence=Evidence(0, 0, 1), model=ModelRef("g", "1", "0" * 64),
)  # fmt: skip
RESOLVED = replace(
    FIRING, revision=2, state=State.RESOLVED, last=130 * MINUTE, end=130 * MINUTE, resolution=Resolution.RETURNED
)


def series(rows: int = 300, sensor: str = "pump") -> Series:
    values = np.arange(rows, dtype=np.float64)[:, None] + 0.5
    return Series(sensor, MINUTE * np.arange(rows, dtype=np.int64), ("flow",), values)


def hidden_rows(of: Mask, one: Series) -> list[int]:
    return np.flatnonzero(~unmasked(one.times, of.spans[one.sensor])).tolist()


@pytest.mark.parametrize(
    ("alert", "last_row"),
    [
        (RESOLVED, 130 + MARGIN_INTERVALS),
        (replace(RESOLVED, kind=Kind.STUCK, channel="flow"), 130 + MARGIN_INTERVALS),
        (replace(RESOLVED, kind=Kind.LIMIT, end=None, last=120 * MINUTE), 120 + MARGIN_INTERVALS),
        (replace(RESOLVED, resolution=Resolution.RETIRED), 130 + MARGIN_INTERVALS),
        (replace(RESOLVED, resolution=Resolution.ACCEPTED), 130),
        (FIRING, 299),
    ],
)
def test_an_episode_is_masked_from_its_start_until_all_is_as_usual(alert: Alert, last_row: int) -> None:
    found = mask([series()], episodes([alert]), {})
    assert hidden_rows(found, series()) == list(range(100, last_row + 1))
    (span,) = found.listed
    assert (span.first, span.last, span.rows) == (100 * MINUTE, last_row * MINUTE, last_row - 99)
    assert span.reason == f"under {alert.kind} alert a1{', still open' if alert is FIRING else ''}"


def test_the_last_revision_counts_whatever_the_order_and_however_often_it_is_told() -> None:
    worse = replace(FIRING, revision=2, state=State.UPDATE)
    ended = replace(RESOLVED, revision=3)
    for told in ([FIRING, worse, ended], [FIRING, worse, ended, FIRING, worse]):
        (episode,) = episodes(told)
        assert episode.last == 130 * MINUTE
    assert episodes([FIRING, worse])[0].last == FOREVER


def test_a_gap_masks_nothing_and_neither_does_another_sensors_alert() -> None:
    gap = replace(FIRING, kind=Kind.GAP)
    elsewhere = replace(FIRING, alert_id="a2", sensor="motor")
    found = mask([series()], episodes([gap, elsewhere]), {})
    assert (dict(found.spans), found.listed, found.hidden(series())) == ({}, (), 0)


def test_a_reading_under_two_alerts_is_counted_once() -> None:
    stuck = replace(RESOLVED, alert_id="a2", kind=Kind.STUCK, start=120 * MINUTE, end=140 * MINUTE)
    found = mask([series()], episodes([RESOLVED, stuck]), {})
    assert [span.rows for span in found.listed] == [36, 26]
    assert found.hidden(series()) == len(hidden_rows(found, series())) == 46


def test_readings_that_are_bad_or_in_maintenance_are_masked_in_runs() -> None:
    said = np.zeros(300, np.uint8)
    said[10:20], said[20:25], said[299] = 1, 2, 1
    found = mask([series()], (), {"pump": said})
    assert [(m.first // MINUTE, m.last // MINUTE, m.rows, m.reason) for m in found.listed] == [
        (10, 19, 10, "quality bad"),
        (20, 24, 5, "quality maintenance"),
        (299, 299, 1, "quality bad"),
    ]


def test_a_late_reading_that_is_bad_masks_nothing_in_between() -> None:
    times = np.array([0, 1, 2, 3, 1, 4], np.int64) * MINUTE
    one = Series("pump", times, ("flow",), np.ones((6, 1)))
    found = mask([one], (), {"pump": np.array([0, 0, 0, 0, 1, 1], np.uint8)})
    assert [(m.first // MINUTE, m.last // MINUTE) for m in found.listed] == [(4, 4)]


def test_a_mask_cuts_the_history_and_is_no_silence_that_the_sensor_is_used_to() -> None:
    spans = np.array([[start, start + 30] for start in range(20, 280, 60)], np.int64) * MINUTE
    plain, cut = history(series(), ("flow",), MINUTE), history(series(), ("flow",), MINUTE, spans)
    assert cut.gap_limit == plain.gap_limit == 5 * MINUTE
    assert cut.starts.tolist() == [0, 20, 49, 78, 107, 136]
    assert not np.isin(cut.times // MINUTE, np.arange(20, 51)).any()
    assert (np.diff(cut.values[:, 0]) == np.diff(cut.times) / MINUTE).all(), "something was filled in"


def test_a_single_masked_reading_cuts_no_more_than_a_lost_one_does() -> None:
    cut = history(series(), ("flow",), MINUTE, np.array([[50, 50]], np.int64) * MINUTE)
    assert (len(cut), cut.starts.tolist()) == (299, [0])


def test_a_sensor_of_which_everything_is_masked_is_left_out_with_the_reason() -> None:
    everything = {"motor": np.array([[0, FOREVER]], np.int64)}
    dataset = prepare([series(), series(sensor="motor")], everything)
    assert [h.sensor for group in dataset.groups for h in group.histories] == ["pump"]
    assert dataset.left_out == ("motor: all of its 300 readings are masked; not trained",)


def test_a_sensor_without_any_value_is_left_out_with_the_reason() -> None:
    nothing = replace(series(sensor="motor"), values=np.full((300, 1), np.nan))
    assert prepare([series(), nothing]).left_out == ("motor: no reading of it has a value; not trained",)


def test_alerts_are_read_line_by_line_and_a_line_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "alerts.jsonl"
    path.write_bytes(encode_alert(FIRING) + b"\n\n" + encode_alert(RESOLVED) + b"\n")
    assert list(read_alerts(path)) == [FIRING, RESOLVED]
    path.write_bytes(encode_alert(FIRING) + b"\n{}\n")
    with pytest.raises(DataError, match=r"alerts\.jsonl: line 2: the message is not an alert"):
        list(read_alerts(path))
    with pytest.raises(DataError, match=r"nowhere\.jsonl: No such file or directory"):
        list(read_alerts(tmp_path / "nowhere.jsonl"))
