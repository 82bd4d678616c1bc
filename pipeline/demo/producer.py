"""The plant as a program of its own: files of its past, or a stream of its present."""

from __future__ import annotations

import csv
import itertools
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pipeline.adapters.kafka_connection import new_producer, partitions_to
from pipeline.codecs import JSON
from pipeline.core.readings import SECOND, Reading
from pipeline.demo.faults import Injection, schedule
from pipeline.demo.plant import Plant
from pipeline.settings_schema import KafkaSettings

HISTORY_ROWS = 2880  # two days: each hour of the daily cycle is seen twice
CHAPTER_ROWS = 5000  # faults are drawn for so many rows at a time


def write_history(sensors: int, seed: int, folder: Path) -> None:
    """A CSV of each sensor, wide, as `foreshock train` reads it."""
    plant = Plant(sensors, seed)
    names = {sensor: line.names for line in plant.lines for sensor in line.sensors}
    for sensor, (times, values) in plant.history(HISTORY_ROWS).items():
        path = folder / f"{sensor}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["timestamp", *names[sensor]])
            stamps = (datetime.fromtimestamp(t / 1e6, UTC).isoformat() for t in times.tolist())
            writer.writerows([stamp, *row] for stamp, row in zip(stamps, values.tolist(), strict=True))


def stream_plant(sensors: int, seed: int, kafka: KafkaSettings, readings_per_second: float) -> None:
    """Send the plant's readings from the end of its history on, at a steady pace but never ahead of the clock."""
    plant = Plant(sensors, seed)
    producer = new_producer(kafka, linger_ms=20)
    partitions_to(producer, kafka.topics.readings)
    started = time.monotonic()
    for row, readings in enumerate(_rows(plant, seed)):
        for reading in readings:
            producer.send(kafka.topics.readings, key=reading.sensor.encode(), value=JSON.encode(reading))
        early = started + (row + 1) * len(plant.sensors) / readings_per_second - time.monotonic()
        ahead = readings[0].time / SECOND - time.time()  # the plant's days are short: after a while it is today
        if max(early, ahead) > 0:
            time.sleep(max(early, ahead))


def _rows(plant: Plant, seed: int) -> Iterator[list[Reading]]:
    """Chapter after chapter, each with faults of its own."""
    for chapter in itertools.count():
        first = HISTORY_ROWS + chapter * CHAPTER_ROWS
        faults = schedule(plant, seed + chapter, first, CHAPTER_ROWS)
        yield from itertools.islice(plant.stream(first, Injection(plant, faults)), CHAPTER_ROWS)
