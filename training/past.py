"""What a retraining reads: readings, alerts and qualities, from files or from a span of the topics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.adapters import joined
from pipeline.adapters.files import Series
from pipeline.core.alerts import Alert
from pipeline.core.readings import Rejected
from pipeline.core.tags import Tags
from training.masking import Episode, QualityArray, episodes, read_alerts

if TYPE_CHECKING:
    from pipeline.adapters.kafka_span import OnRecords
    from pipeline.settings_schema import KafkaSettings


@dataclass(frozen=True, slots=True, eq=False)
class Past:
    """All that may be learned from, and what is known to be wrong with some of it."""

    series: Sequence[Series]
    episodes: Sequence[Episode] = ()
    quality: Mapping[str, QualityArray] = field(default_factory=dict)  # as `masking.mask` reads it
    notes: Sequence[str] = ()  # what was not read, in sentences


def from_files(
    path: Path, alerts: Path | None = None, timezone: str = "UTC", *, join: bool = False, tag: str | None = None
) -> Past:
    """Readings from CSV or Parquet, alerts from the JSON lines of `foreshock replay --alerts`."""
    return Past(joined.read(path, timezone, join=join, tag=tag), episodes(read_alerts(alerts)) if alerts else ())


def from_topic(
    kafka: KafkaSettings,
    since: int,
    max_future: int,
    topic: str | None = None,
    on_records: OnRecords | None = None,
    *,
    join: bool = False,
    tag: str | None = None,
) -> Past:
    """Readings from `since` (µs) on, out of `topic` or the one in the settings; alerts out of the settings' topic."""
    from pipeline.adapters import kafka_history  # a history in files needs no Kafka

    tags = Tags(tag) if tag else None
    readings = kafka_history.read_readings(
        kafka, topic or kafka.topics.readings, since, max_future, on_records, tags=tags, join=join
    )
    refused: list[Rejected] = []

    def alerts() -> Iterator[Alert]:
        for said in kafka_history.read_alerts(kafka, kafka.topics.alerts):
            if isinstance(said, Rejected):
                refused.append(said)
            else:
                yield said

    found = episodes(alerts())
    notes = []
    if readings.refused:
        notes.append(f"{readings.refused} messages were refused, as the live service refuses them")
    if refused:
        first = f"the first in partition {refused[0].partition} at offset {refused[0].offset}: {refused[0].detail}"
        notes.append(f"{len(refused)} messages in {kafka.topics.alerts} are no alerts, so they mask nothing; {first}")
    return Past(readings.series, found, readings.quality, notes)
