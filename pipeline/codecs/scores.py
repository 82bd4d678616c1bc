"""Scores on the wire: one JSON message a reading, for whoever wants to see more than alerts."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from pipeline.ports import Scored


def encode_scores(scored: Scored) -> Iterator[tuple[str, bytes]]:
    """Sensor and message of each reading: score, what was expected of it and what came; null where there is none."""
    model, batch, outcome = scored
    actual = batch.values[:, model.target_columns].tolist()
    expected, band, imputed = outcome.expected.tolist(), outcome.band.tolist(), outcome.imputed.tolist()
    for i, (sensor, time, score, alerting) in enumerate(
        zip(batch.sensors, batch.times.tolist(), outcome.scores.tolist(), outcome.alerting.tolist(), strict=True)
    ):
        message = {
            "sensor": sensor,
            "time": time // 1000,
            "group": model.group,
            "score": score,
            "alerting": alerting,
            "actual": dict(zip(model.targets, actual[i], strict=True)),
            "expected": dict(zip(model.targets, expected[i], strict=True)),
            "band": dict(zip(model.targets, band[i], strict=True)),
            "imputed": imputed[i],
        }
        yield sensor, msgspec.json.encode(message)
